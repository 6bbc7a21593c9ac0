defmodule Chatterbex.HTTP.Counters do
  @moduledoc false
  # A fixed number of counters that any process can increment.

  alias Chatterbex.HTTP.Response

  @routes [
    :speech,
    :models,
    :model,
    :audio_models,
    :voices,
    :health,
    :ready,
    :metrics,
    :playground,
    :player,
    :openapi,
    :other
  ]
  @statuses [200, 204, 400, 401, 403, 404, 405, 409, 413, 415, 429, 500, 503]

  # Milliseconds to the first byte of speech.
  @buckets [10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000]

  @keys for(route <- @routes, status <- @statuses, do: {route, status}) ++
          Enum.map(@buckets, &{:first, &1}) ++
          [:first_count, :first_micros, :audio_millis, :characters, :failed]

  @indexes @keys |> Enum.with_index(1) |> Map.new()

  @type t :: :counters.counters_ref()

  @spec new() :: t
  def new, do: :counters.new(map_size(@indexes), [:write_concurrency])

  @spec answered(t, atom, integer) :: :ok
  def answered(metrics, route, status) do
    case @indexes[{route, status}] do
      nil -> :ok
      index -> :counters.add(metrics, index, 1)
    end
  end

  @doc """
  Records the time to the first byte of speech, which is now.
  """
  @spec timed(t, atom, Response.t(), integer) :: Response.t()
  def timed(metrics, :speech, %{status: 200} = response, started) do
    micros = System.convert_time_unit(System.monotonic_time() - started, :native, :microsecond)
    add(metrics, :first_count, 1)
    add(metrics, :first_micros, micros)
    for bucket <- @buckets, micros <= bucket * 1_000, do: add(metrics, {:first, bucket}, 1)
    response
  end

  def timed(_metrics, _route, response, _started), do: response

  @spec add(t, term, non_neg_integer) :: :ok
  def add(metrics, key, amount), do: :counters.add(metrics, Map.fetch!(@indexes, key), amount)

  @doc """
  The counters in Prometheus' text format.
  """
  @spec text(t) :: iodata
  def text(metrics) do
    get = &:counters.get(metrics, Map.fetch!(@indexes, &1))

    [
      head("chatterbex_http_requests_total", "Requests answered.", "counter"),
      for(
        route <- @routes,
        status <- @statuses,
        count = get.({route, status}),
        count > 0,
        do: "chatterbex_http_requests_total{route=\"#{route}\",status=\"#{status}\"} #{count}\n"
      ),
      head("chatterbex_http_first_byte_seconds", "Time to the first byte of speech.", "histogram"),
      for(
        bucket <- @buckets,
        do: "chatterbex_http_first_byte_seconds_bucket{le=\"#{bucket / 1_000}\"} #{get.({:first, bucket})}\n"
      ),
      "chatterbex_http_first_byte_seconds_bucket{le=\"+Inf\"} #{get.(:first_count)}\n",
      "chatterbex_http_first_byte_seconds_sum #{get.(:first_micros) / 1_000_000}\n",
      "chatterbex_http_first_byte_seconds_count #{get.(:first_count)}\n",
      head("chatterbex_http_audio_seconds_total", "Seconds of audio made.", "counter"),
      "chatterbex_http_audio_seconds_total #{get.(:audio_millis) / 1_000}\n",
      head("chatterbex_http_input_characters_total", "Characters of text asked for.", "counter"),
      "chatterbex_http_input_characters_total #{get.(:characters)}\n",
      head("chatterbex_http_failed_streams_total", "Speech that failed after its first audio.", "counter"),
      "chatterbex_http_failed_streams_total #{get.(:failed)}\n"
    ]
  end

  @spec head(String.t(), String.t(), String.t()) :: iodata
  def head(name, help, type), do: "# HELP #{name} #{help}\n# TYPE #{name} #{type}\n"
end
