defmodule Chatterbex.Server.Failure do
  @moduledoc false
  # The errors of a server, with messages for its users. `state` is the state of the server.

  alias Chatterbex.{Error, Options, Peer}
  alias Chatterbex.Server.{Crashes, Queue, Request}

  @doc """
  A name that cannot be registered.
  """
  @spec not_registered(term, Exception.t()) :: Error.t()
  def not_registered(name, exception) do
    Error.new(
      :not_running,
      "the server cannot be registered as #{inspect(name)}: #{Exception.message(exception)}. " <>
        "Is its registry running?",
      %{server: name}
    )
  end

  @doc """
  The process that prepares a load crashed.
  """
  @spec not_prepared(term) :: Error.t()
  def not_prepared(reason),
    do: Error.new(:engine_crashed, "preparing the model crashed: #{Options.Schema.show(reason)}")

  @doc """
  The model was not loaded within `:load_timeout`.
  """
  @spec not_ready(map) :: Error.t()
  def not_ready(%{options: %{load_timeout: timeout}} = state) do
    late = "the model #{inspect(state.model.name)} was not ready within #{timeout} ms"

    if state.crashes.loads == 0,
      do: Error.new(:timeout, "#{late}. Raise :load_timeout.", %{load_timeout: timeout}),
      else: Error.new(:engine_crashed, "#{late}: its process #{Crashes.loads(state.crashes)}", crashed(state))
  end

  @doc """
  The model's process died too often while it loaded the model.
  """
  @spec keeps_dying(map) :: Error.t()
  def keeps_dying(state) do
    Error.new(
      :engine_crashed,
      "the process of #{inspect(state.name)} keeps dying while it loads the model: it #{Crashes.loads(state.crashes)}",
      crashed(state)
    )
  end

  defp crashed(%{crashes: %{loads: loads, last: reason}}), do: %{exit: reason, times: loads}

  @doc """
  The queue is full.
  """
  @spec full(map, String.t(), non_neg_integer) :: Error.t()
  def full(state, what, open) do
    %{queue: %{max_queue: max} = queue} = state

    Error.new(
      :overloaded,
      "the queue of #{inspect(state.name)} is full: #{open} #{what} are open, and #{Queue.limit(queue)} may be " <>
        "(:max_queue is #{max}). Try again later, or raise :max_queue.",
      %{open: open, limit: Queue.limit(queue), max_queue: max}
    )
  end

  @doc """
  A request was not done by its timeout or deadline.
  """
  @spec timed_out(Request.t(), map) :: Error.t()
  def timed_out(request, state) do
    waited = System.monotonic_time() - request.opened_at
    ms = System.convert_time_unit(waited, :native, :millisecond)
    where = where(request, state)

    {what, remedy} =
      case request.deadline do
        nil -> {"no audio after #{ms} ms", "Raise :timeout."}
        deadline -> {"the deadline #{deadline} has passed", "Give a later :deadline."}
      end

    details = if request.deadline, do: %{deadline: request.deadline}, else: %{}

    Error.new(
      :timeout,
      "#{what}: the request was still #{where}. #{remedy}",
      Map.put(details, :waited_ms, ms)
    )
  end

  defp where(_request, %{status: :loading, crashes: %{loads: loads} = crashes}) when loads > 0,
    do: "waiting for the model, whose process #{Crashes.loads(crashes)}"

  defp where(%{started: true}, _state), do: "being spoken"
  defp where(_request, _state), do: "waiting for its turn"

  @doc """
  A call was not answered by its timeout.
  """
  @spec no_answer(map) :: Error.t()
  def no_answer(state),
    do: Error.new(:timeout, "#{inspect(state.name)} did not answer in time. Raise :timeout.")

  @doc """
  A text ended the model's process too often.
  """
  @spec guilty(String.t(), [Peer.reason(), ...]) :: Error.t()
  def guilty(text, deaths) do
    Error.new(
      :engine_crashed,
      "the text #{Options.Schema.show(text)} will not be spoken: it ended the model's process #{length(deaths)} times, " <>
        "the last time by #{Crashes.describe(hd(deaths))}",
      %{text: text, deaths: Enum.map(deaths, &Crashes.describe/1)}
    )
  end

  @doc """
  A call of a function ended the model's process too often.
  """
  @spec guilty_call(map) :: Error.t()
  def guilty_call(%{function: function, deaths: deaths}) do
    Error.new(
      :engine_crashed,
      "#{function} is not tried again: it ended the model's process #{length(deaths)} times, " <>
        "the last time by #{Crashes.describe(hd(deaths))}",
      %{function: function, deaths: Enum.map(deaths, &Crashes.describe/1)}
    )
  end

  @doc """
  The model's process died while a stream was being spoken.
  """
  @spec interrupted(String.t()) :: Error.t()
  def interrupted(how) do
    Error.new(
      :engine_crashed,
      "the model's process died by #{how} while this stream was being spoken. Streams with resume: true continue.",
      %{exit: how}
    )
  end

  @spec cancelled() :: Error.t()
  def cancelled, do: Error.new(:cancelled, "the request was cancelled")

  @spec stopped(map) :: Error.t()
  def stopped(state),
    do: Error.new(:cancelled, "the server #{inspect(state.name)} was stopped before the request was done")
end
