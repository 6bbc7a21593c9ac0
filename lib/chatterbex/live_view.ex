if Code.ensure_loaded?(Phoenix.LiveView) do
  defmodule Chatterbex.LiveView do
    @moduledoc """
    Speech in a LiveView.

        defmodule MyAppWeb.HelloLive do
          use MyAppWeb, :live_view
          import Chatterbex.LiveView

          on_mount Chatterbex.LiveView

          def render(assigns) do
            ~H\"\"\"
            <form phx-submit="say"><input name="text" /><button>Speak</button></form>
            <.speech player={@speech} />
            \"\"\"
          end

          def handle_event("say", %{"text" => text}, socket), do: {:noreply, speak(socket, text)}
        end

    In `assets/js/app.js`, add the player, which comes with this package:

        import {Chatterbex} from "chatterbex"

        const liveSocket = new LiveSocket("/live", Socket, {hooks: {Chatterbex}, params: {_csrf_token: csrfToken}})

    The speech plays while it is being made. `speech/1` shows the words being spoken, a button to stop, and errors. New
    speech stops the old. When the user leaves the page, the work for it stops. [The guide](liveview.md) says more.

    The server sends audio at most a few seconds ahead of what is playing, however long the text is.

    This module exists only if the application has Phoenix LiveView.

    ## The player

    The assign `:speech` holds a `t:t/0`, for your own markup:

      * `status` - `:idle`, `:waiting` (for the first audio) or `:speaking` (until the last audio was played)
      * `error` - the `Chatterbex.Error` that ended the speech, or `nil`

    ## Several players

    Each name of `:players` is an assign:

        on_mount {Chatterbex.LiveView, players: [:left, :right], server: MyApp.Speech}

        <.speech player={@left} />
        <.speech player={@right} />

        speak(socket, "On the left.", player: :left)
    """

    use Phoenix.Component

    alias Chatterbex.{Audio, Error}
    alias Chatterbex.LiveView.Outbox
    alias Phoenix.LiveView
    alias Phoenix.LiveView.Socket

    @enforce_keys [:name]
    defstruct [:name, status: :idle, error: nil]

    @typedoc "A player of a page: the assign that `speech/1` shows."
    @type t :: %__MODULE__{
            name: atom,
            status: :idle | :waiting | :speaking,
            error: Error.t() | nil
          }

    # Chunks sent but not yet played: sentences, or parts of them.
    @max_unacked 8

    @doc """
    Attaches the players to a LiveView when it is mounted: `on_mount Chatterbex.LiveView`, or
    `on_mount {Chatterbex.LiveView, options}` with the options of `attach/2`.

    ## Examples

        on_mount {Chatterbex.LiveView, server: MyApp.Speech}
    """
    @spec on_mount(:default | keyword, map | :not_mounted_at_router, map, Socket.t()) :: {:cont, Socket.t()}
    def on_mount(options, _params, _session, socket),
      do: {:cont, attach(socket, if(options == :default, do: [], else: options))}

    @doc """
    Attaches the players to a LiveView, in its `mount/3`. `on_mount/4` does the same in one line.

    It handles the messages and the events of the players. All others reach your own `handle_info/2` and
    `handle_event/3`.

    ## Options

      * `:players` - a list of atoms, the assigns of the players. The default is `[:speech]`
      * the options of `Chatterbex.stream_to/3`, as defaults for `speak/3`

    ## Examples

        def mount(_params, _session, socket), do: {:ok, attach(socket, server: MyApp.Speech, voice: "ann")}
    """
    @spec attach(Socket.t(), keyword) :: Socket.t()
    def attach(%Socket{} = socket, options \\ []) do
      {names, defaults} = Keyword.pop(options, :players, [:speech])

      socket
      |> assign(Map.new(names, &{&1, %__MODULE__{name: &1}}))
      |> LiveView.put_private(__MODULE__, %{names: names, defaults: defaults, speeches: %{}})
      |> LiveView.attach_hook(__MODULE__, :handle_info, &handle_info/2)
      |> LiveView.attach_hook(__MODULE__, :handle_event, &handle_event/3)
    end

    @doc """
    Speaks a text in the browser: a string, or an Enumerable of strings such as the tokens of a language model.

    It stops what the player is speaking. If it fails, `speech/1` shows the error, which is also in `error` of the player.

    ## Options

      * `:player` - the assign of the player. The default is the first of `attach/2`
      * the options of `Chatterbex.stream_to/3`. The default of `:max_unacked` is #{@max_unacked}

    ## Examples

        def handle_event("say", %{"text" => text}, socket), do: {:noreply, speak(socket, text, speed: 1.2)}
    """
    @spec speak(Socket.t(), String.t() | Enumerable.t(), keyword) :: Socket.t()
    def speak(%Socket{} = socket, text, options \\ []) do
      {name, options} = player(socket, options)
      options = Keyword.merge([max_unacked: @max_unacked] ++ attached(socket).defaults, options)
      socket = cancel(socket, name)

      case Chatterbex.stream_to(text, self(), options) do
        {:ok, ref} ->
          outbox = Outbox.new(ref)

          socket
          |> put_speech(name, outbox)
          |> show(name, status: :waiting, error: nil)
          |> push(name, %{op: "begin", speech: outbox.id})

        {:error, error} ->
          socket |> show(name, status: :idle, error: error) |> push(name, %{op: "stop"})
      end
    end

    @doc """
    Stops what a player is speaking. A silent player is not affected.

    ## Options

      * `:player` - the assign of the player. The default is the first of `attach/2`

    ## Examples

        def handle_event("quiet", _params, socket), do: {:noreply, stop(socket)}
    """
    @spec stop(Socket.t(), keyword) :: Socket.t()
    def stop(%Socket{} = socket, options \\ []) do
      {name, _options} = player(socket, options)
      socket |> cancel(name) |> show(name, status: :idle) |> push(name, %{op: "stop"})
    end

    @doc """
    Shows a player: the words being spoken, a button to stop, a button to start if the browser waits for a click, and an
    error.

    For your style sheet, its parts have the attributes `data-chatterbex="player"`, `"caption"`, `"stop"`, `"resume"` and
    `"error"`. The `data-state` of the player is `idle`, `waiting`, `playing` or `blocked`.

    ## Examples

        <.speech player={@speech} />
        <.speech player={@speech} captions={false} stop="Enough" class="player" />
    """
    attr(:player, :any, required: true, doc: "the assign of the player")
    attr(:captions, :boolean, default: true, doc: "whether to show the words being spoken")
    attr(:stop, :string, default: "Stop", doc: "the text of the button that stops")

    attr(:resume, :string,
      default: "Play",
      doc: "the text of the button that shows while the browser waits for a click"
    )

    attr(:rest, :global)

    @spec speech(map) :: Phoenix.LiveView.Rendered.t()
    def speech(assigns) do
      ~H"""
      <div id={id(@player.name)} phx-hook="Chatterbex" {@rest}>
        <div id={id(@player.name) <> "-player"} phx-update="ignore">
          <div data-chatterbex="player" data-state="idle">
            <p :if={@captions} data-chatterbex="caption" aria-live="polite"></p>
            <button type="button" data-chatterbex="resume" hidden><%= @resume %></button>
            <button type="button" data-chatterbex="stop" hidden><%= @stop %></button>
          </div>
        </div>
        <p :if={@player.error} role="alert" data-chatterbex="error"><%= @player.error.message %></p>
      </div>
      """
    end

    defp id(name), do: "chatterbex-#{name}"

    # Messages of other streams belong to the application.
    defp handle_info({:chatterbex, ref, message}, socket) do
      case find(socket, &(&1.ref == ref)) do
        {name, outbox} -> {:halt, received(message, name, outbox, socket)}
        nil -> {:cont, socket}
      end
    end

    defp handle_info({__MODULE__, :send, id}, socket) do
      with {name, outbox} <- find(socket, &(&1.id == id)) do
        {:halt, send_part(socket, name, %{outbox | scheduled: false})}
      else
        nil -> {:halt, socket}
      end
    end

    defp handle_info(_other, socket), do: {:cont, socket}

    defp received({:chunk, audio}, name, outbox, socket) do
      pcm = Audio.to_pcm16!(audio)
      outbox = Outbox.put(outbox, pcm, audio.sample_rate * audio.channels * 2, audio.metadata[:text])
      socket |> show(name, status: :speaking) |> send_part(name, %{outbox | rate: audio.sample_rate})
    end

    defp received(:done, name, outbox, socket), do: send_part(socket, name, %{outbox | complete: true})

    defp received({:error, error}, name, outbox, socket),
      do: received(:done, name, outbox, show(socket, name, error: error))

    # Each message of the socket carries one part, so that the first part arrives before the last is sent.
    defp send_part(socket, name, outbox) do
      case Outbox.next(outbox) do
        {{pcm, text}, outbox} ->
          part = %{op: "part", speech: outbox.id, rate: outbox.rate, pcm: Base.encode64(pcm), text: text}
          if not outbox.scheduled, do: send(self(), {__MODULE__, :send, outbox.id})
          socket |> put_speech(name, %{outbox | scheduled: true}) |> push(name, part)

        :wait ->
          put_speech(socket, name, outbox)

        :end ->
          socket |> put_speech(name, %{outbox | ended: true}) |> push(name, %{op: "end", speech: outbox.id})
      end
    end

    # A browser may send anything.
    defp handle_event("chatterbex:" <> event, params, socket) do
      with %{"speech" => id} <- params,
           {name, outbox} <- find(socket, &(&1.id == id)) do
        {:halt, heard(event, params, name, outbox, socket)}
      else
        _nothing_of_ours -> {:halt, socket}
      end
    end

    defp handle_event(_other, _params, socket), do: {:cont, socket}

    defp heard("played", %{"part" => part}, name, outbox, socket) when is_integer(part) do
      {chunks, outbox} = Outbox.played(outbox, part)
      if chunks > 0, do: Chatterbex.ack(outbox.ref, chunks)
      send_part(socket, name, outbox)
    end

    # The last part was played, or the user pressed the button.
    defp heard("ended", _params, name, _outbox, socket),
      do: socket |> cancel(name) |> show(name, status: :idle)

    defp heard(_other, _params, _name, _outbox, socket), do: socket

    # Leaves no message of the stream in the mailbox.
    defp cancel(socket, name) do
      case attached(socket).speeches[name] do
        nil ->
          socket

        outbox ->
          :ok = Chatterbex.cancel(outbox.ref)
          flush(outbox.ref)
          put_speech(socket, name, nil)
      end
    end

    defp flush(ref) do
      receive do
        {:chatterbex, ^ref, _message} -> flush(ref)
      after
        0 -> :ok
      end
    end

    defp attached(socket) do
      socket.private[__MODULE__] ||
        raise ArgumentError,
              "no player is attached to this LiveView: write `on_mount Chatterbex.LiveView` in its module"
    end

    defp player(socket, options) do
      %{names: [first | _more] = names} = attached(socket)
      {name, options} = Keyword.pop(options, :player, first)

      if name not in names,
        do:
          raise(
            ArgumentError,
            "there is no player #{inspect(name)}; the attached players are #{inspect(names)}"
          )

      {name, options}
    end

    defp find(socket, condition),
      do: Enum.find(attached(socket).speeches, fn {_name, outbox} -> condition.(outbox) end)

    defp put_speech(socket, name, outbox) do
      attached = attached(socket)

      speeches =
        if outbox,
          do: Map.put(attached.speeches, name, outbox),
          else: Map.delete(attached.speeches, name)

      LiveView.put_private(socket, __MODULE__, %{attached | speeches: speeches})
    end

    defp show(socket, name, changes), do: assign(socket, name, struct!(socket.assigns[name], changes))

    defp push(socket, name, message), do: LiveView.push_event(socket, "chatterbex:" <> id(name), message)
  end
end
