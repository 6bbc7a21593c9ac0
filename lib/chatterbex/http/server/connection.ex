defmodule Chatterbex.HTTP.Server.Connection do
  @moduledoc false
  # One connection: reads requests and answers them one after another.
  #
  # The socket is active once at a time, so that a client that hangs up is noticed while its speech is being made. Speech
  # is made in a separate process, which returns its audio part by part and is stopped when the client is gone.

  require Logger

  alias Chatterbex.{Error, HTTP, Mailbox}
  alias Chatterbex.HTTP.{ErrorResponse, Request, Response}
  alias Chatterbex.HTTP.Server.Wire

  # The number of bytes that a client may send ahead while it gets an answer.
  @max_ahead 65_536

  # If a client is still sending when it gets its error, the server reads on for this long, in milliseconds and bytes.
  # Closing the connection at once would lose the error.
  @linger 2_000
  @max_lingering 16_777_216

  @begin_timeout 5_000

  @spec child_spec({:gen_tcp.socket(), map}) :: Supervisor.child_spec()
  def child_spec({socket, settings}) do
    %{
      id: __MODULE__,
      start: {__MODULE__, :start_link, [socket, settings]},
      restart: :temporary,
      shutdown: 1_000
    }
  end

  @spec start_link(:gen_tcp.socket(), map) :: {:ok, pid}
  def start_link(socket, settings), do: {:ok, :proc_lib.spawn_link(fn -> init(socket, settings) end)}

  @doc """
  Tells the connection that it now owns the socket.
  """
  @spec begin(pid) :: :ok
  def begin(connection), do: tell(connection, :begin)

  @doc """
  The socket was lost on the way.
  """
  @spec give_up(pid) :: :ok
  def give_up(connection), do: tell(connection, :give_up)

  @doc """
  The server is about to stop: the connection ends after the request that it is busy with.
  """
  @spec drain(pid) :: :ok
  def drain(connection), do: tell(connection, :drain)

  defp tell(connection, message) do
    send(connection, {__MODULE__, message})
    :ok
  end

  defp init(socket, settings) do
    # The supervisor's order to stop must not hit a process that is about to tell its worker.
    Process.flag(:trap_exit, true)

    receive do
      {__MODULE__, :begin} -> idle(%{socket: socket, settings: settings, buffer: "", draining: false})
      {__MODULE__, :give_up} -> :ok
    after
      @begin_timeout -> :ok
    end
  end

  ## Reading

  defp idle(%{draining: true, buffer: ""} = state), do: close(state)
  defp idle(%{buffer: ""} = state), do: more(state, now() + state.settings.idle_timeout, true, &head/2)
  defp idle(state), do: head(state, now() + state.settings.read_timeout)

  # Gets more bytes, and continues with `next` and the deadline for the request.
  defp more(state, deadline, idle?, next) do
    case receive_bytes(state, deadline, idle?) do
      {:ok, state} when idle? -> next.(state, now() + state.settings.read_timeout)
      {:ok, state} -> next.(state, deadline)
      :timeout when idle? -> close(state)
      :timeout -> refuse(state, 408, "the request did not arrive in time")
      :closed -> close(state)
    end
  end

  defp receive_bytes(%{socket: socket} = state, deadline, idle?) do
    :inet.setopts(socket, active: :once)
    wait(state, deadline, idle?)
  end

  defp wait(%{socket: socket} = state, deadline, idle?) do
    receive do
      {:tcp, ^socket, bytes} -> {:ok, %{state | buffer: state.buffer <> bytes}}
      {:tcp_closed, ^socket} -> :closed
      {:tcp_error, ^socket, _reason} -> :closed
      {__MODULE__, :drain} when idle? -> :closed
      {__MODULE__, :drain} -> wait(%{state | draining: true}, deadline, idle?)
      {:EXIT, _supervisor, _reason} -> :closed
    after
      max(deadline - now(), 0) -> :timeout
    end
  end

  # Empty lines before a request are skipped, as HTTP asks for.
  defp head(%{buffer: "\r\n" <> rest} = state, deadline), do: head(%{state | buffer: rest}, deadline)

  defp head(%{buffer: buffer} = state, deadline) when buffer in ["", "\r"],
    do: more(state, deadline, false, &head/2)

  defp head(%{buffer: buffer, settings: settings} = state, deadline) do
    case :binary.match(buffer, "\r\n\r\n") do
      {at, 4} when at <= settings.max_head ->
        <<head::binary-size(at), _end::32, rest::binary>> = buffer
        parsed(Wire.parse(head), %{state | buffer: rest}, deadline)

      :nomatch when byte_size(buffer) <= settings.max_head ->
        more(state, deadline, false, &head/2)

      _too_large ->
        refuse(state, 431, "the headers are larger than #{settings.max_head} bytes")
    end
  end

  defp parsed({:error, message}, state, _deadline), do: refuse(state, 400, message)

  defp parsed({:ok, head}, state, deadline) do
    {max, larger} = HTTP.limit(state.settings.http, http_request(head, ""))
    head = Map.merge(head, %{max: max, larger: larger})

    case head.body do
      {:length, length} when length > max -> refuse(state, larger)
      _length -> begin_body(head, state, deadline)
    end
  end

  # A client that expects this waits for it before it sends the body.
  defp begin_body(head, state, deadline) do
    if head.continue and head.body != {:length, 0}, do: send_bytes(state, "HTTP/1.1 100 Continue\r\n\r\n")
    body(head, [], 0, state, deadline)
  end

  defp body(%{body: {:length, length}} = head, parts, _size, %{buffer: buffer} = state, deadline) do
    case buffer do
      <<body::binary-size(length), rest::binary>> -> request(head, body, %{state | buffer: rest})
      _incomplete -> more(state, deadline, false, &body(head, parts, 0, &1, &2))
    end
  end

  defp body(%{body: :chunked} = head, parts, size, state, deadline) do
    case Wire.chunk(state.buffer, head.max - size) do
      {:data, data, rest} ->
        body(head, [data | parts], size + byte_size(data), %{state | buffer: rest}, deadline)

      {:last, rest} ->
        request(head, parts |> Enum.reverse() |> IO.iodata_to_binary(), %{state | buffer: rest})

      :more ->
        more(state, deadline, false, &body(head, parts, size, &1, &2))

      :too_large ->
        refuse(state, head.larger)

      {:error, message} ->
        refuse(state, 400, message)
    end
  end

  ## Answering

  defp request(head, body, state) do
    request = http_request(head, body)
    answer(HTTP.long?(request), request, head, state)
  end

  defp http_request(head, body) do
    {path, query} = Wire.path(head.target)
    %Request{method: head.method, path: path, query: query, headers: head.headers, body: body}
  end

  defp answer(false, request, head, state) do
    response = HTTP.call(state.settings.http, request)
    state = drained(state)
    head = %{head | keep: head.keep and not state.draining}
    length = IO.iodata_length(response.body)
    body = if request.method == "HEAD", do: "", else: response.body
    sent(send_bytes(state, [Wire.head(response, head, length), body]), head, state)
  end

  defp answer(true, request, head, state) do
    connection = self()
    ref = make_ref()
    http = state.settings.http

    work = fn ->
      Process.link(connection)
      speak(http, request, connection, ref)
    end

    case Task.Supervisor.start_child(state.settings.workers, work, restart: :temporary) do
      {:ok, worker} ->
        :inet.setopts(state.socket, active: :once)
        deadline = now() + state.settings.request_timeout
        relay(%{worker: worker, ref: ref, head: head, deadline: deadline, streaming: false}, state)

      {:error, :max_children} ->
        busy(head, state)
    end
  end

  defp busy(head, state) do
    whole(ErrorResponse.busy("the server is handling as many requests as it may"), head, state)
  end

  defp whole(response, head, state) do
    bytes = [Wire.head(response, head, IO.iodata_length(response.body)), response.body]
    sent(send_bytes(state, bytes), head, state)
  end

  defp sent(:ok, %{keep: true}, state), do: idle(state)
  defp sent(:ok, _head, state), do: hang_up(state)
  defp sent({:error, _reason}, _head, state), do: close(state)

  # Runs in the worker: hands over one part of the body at a time, and waits until it is sent.
  defp speak(http, request, connection, ref) do
    case HTTP.call(http, request) do
      %{body: {:stream, body}} = response ->
        send(connection, {ref, {:stream, %{response | body: ""}}})
        Enum.each(body, &give(&1, connection, ref))
        send(connection, {ref, :done})

      response ->
        send(connection, {ref, {:whole, response}})
    end
  rescue
    error in Error -> send(connection, {ref, {:failed, error}})
  end

  # This process ends with the connection.
  defp give(part, connection, ref) do
    send(connection, {ref, {:part, part}})
    receive(do: ({^ref, :more} -> :ok))
  end

  defp relay(%{worker: worker, ref: ref} = job, %{socket: socket} = state) do
    receive do
      {^ref, message} -> relayed(message, job, state)
      {:tcp, ^socket, bytes} -> relay(job, ahead(state, bytes))
      {:tcp_closed, ^socket} -> abandon(job, state)
      {:tcp_error, ^socket, _reason} -> abandon(job, state)
      {__MODULE__, :drain} -> relay(job, %{state | draining: true})
      {:EXIT, ^worker, _reason} -> broken(job, state)
      {:EXIT, _supervisor, _reason} -> abandon(job, state)
    after
      max(job.deadline - now(), 0) -> overdue(job, state)
    end
  end

  # A client may send its next request ahead. If it sends more, reading continues after its answer was sent.
  defp ahead(state, bytes) do
    state = %{state | buffer: state.buffer <> bytes}
    if byte_size(state.buffer) < @max_ahead, do: :inet.setopts(state.socket, active: :once)
    state
  end

  defp relayed({:whole, response}, job, state) do
    ended(job)
    whole(response, %{job.head | keep: job.head.keep and not state.draining}, state)
  end

  defp relayed({:stream, response}, job, state) do
    head = %{job.head | keep: job.head.keep and not state.draining}
    job = %{job | head: head, streaming: true}

    case send_bytes(state, Wire.head(response, head, :stream)) do
      :ok -> relay(job, state)
      {:error, _reason} -> abandon(job, state)
    end
  end

  defp relayed({:part, part}, job, state) do
    case send_bytes(state, framed(part, job.head.version)) do
      :ok ->
        send(job.worker, {job.ref, :more})
        relay(job, state)

      {:error, _reason} ->
        abandon(job, state)
    end
  end

  defp relayed(:done, job, state) do
    ended(job)
    last = if job.head.version == {1, 1}, do: "0\r\n\r\n", else: ""
    sent(send_bytes(state, last), job.head, state)
  end

  defp relayed({:failed, error}, job, state) do
    Logger.error("speech ended too early: #{error.message}")
    ended(job)
    reset(state)
  end

  # An empty chunk would be the end.
  defp framed(part, version) do
    case {IO.iodata_length(part), version} do
      {0, _version} -> ""
      {length, {1, 1}} -> [Integer.to_string(length, 16), "\r\n", part, "\r\n"]
      _closing -> part
    end
  end

  defp overdue(%{streaming: true} = job, state) do
    stop(job)
    reset(state)
  end

  defp overdue(job, state) do
    stop(job)

    refuse(state, 503, "there was no answer within #{state.settings.request_timeout} ms")
  end

  defp broken(%{streaming: true}, state), do: reset(state)
  defp broken(_job, state), do: refuse(state, 500, "the server failed; its log says why")

  # The client is gone, or the server stops.
  defp abandon(job, state) do
    stop(job)
    close(state)
  end

  defp stop(job) do
    Process.exit(job.worker, {:shutdown, :hung_up})
    ended(job)
  end

  # Nothing of the worker is left in the mailbox of a connection that lives on.
  defp ended(%{worker: worker, ref: ref}) do
    receive do
      {:EXIT, ^worker, _reason} -> :ok
    after
      @begin_timeout -> Process.unlink(worker)
    end

    Mailbox.flush(ref)
  end

  ## Ends

  defp refuse(state, status, message), do: refuse(state, Response.error(status, message))

  defp refuse(state, response) do
    head = Wire.head(response, %{version: {1, 1}, keep: false}, IO.iodata_length(response.body))

    case send_bytes(state, [head, response.body]) do
      :ok -> hang_up(state)
      {:error, _reason} -> close(state)
    end
  end

  defp hang_up(state) do
    :gen_tcp.shutdown(state.socket, :write)
    linger(state, now() + @linger, 0)
  end

  defp linger(state, deadline, read) do
    case receive_bytes(%{state | buffer: ""}, deadline, true) do
      {:ok, %{buffer: bytes}} when read + byte_size(bytes) < @max_lingering ->
        linger(state, deadline, read + byte_size(bytes))

      _end ->
        close(state)
    end
  end

  # An incomplete body must not look complete.
  defp reset(state) do
    :inet.setopts(state.socket, linger: {true, 0})
    close(state)
  end

  defp close(state) do
    :gen_tcp.close(state.socket)
    :ok
  end

  defp send_bytes(state, bytes), do: :gen_tcp.send(state.socket, bytes)

  defp drained(state) do
    receive do
      {__MODULE__, :drain} -> %{state | draining: true}
    after
      0 -> state
    end
  end

  defp now, do: System.monotonic_time(:millisecond)
end
