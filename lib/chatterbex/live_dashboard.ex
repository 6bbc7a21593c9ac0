if Code.ensure_loaded?(Phoenix.LiveDashboard.PageBuilder) do
  defmodule Chatterbex.LiveDashboard do
    @moduledoc """
    A page of Phoenix LiveDashboard that shows the servers of a node: what each is doing now, and how fast it was recently.

        # in your router
        live_dashboard "/dashboard",
          metrics: MyAppWeb.Telemetry,
          additional_pages: [speech: Chatterbex.LiveDashboard]

    | column | what it shows |
    |---|---|
    | Status, Device | see `Chatterbex.info/1`; names the requested device too if it is not the same |
    | Open, Waiting, Running | the queue: see `Chatterbex.info/1` |
    | First audio | milliseconds from asking for a stream to its first chunk |
    | RTF | seconds of work per second of audio: below 1, speech is made faster than it is played |
    | Tokens/s | speech tokens of T3 per second |
    | Calls, Errors | generations, streams, conversions and clonings that ended, and how many of them failed |
    | Fallbacks, Crashes | how often the model fell back to the CPU, and how often the process of an isolated model died |

    The three figures of speed are medians of each server's last 100 calls. Counts begin at the start of the
    application, on the node that you look at. For charts, give the dashboard `Chatterbex.Telemetry.metrics/0`.

    This module exists only if the application has `:phoenix_live_dashboard`.
    """

    use Phoenix.LiveDashboard.PageBuilder

    alias Chatterbex.LiveDashboard.Servers

    @impl true
    def menu_link(_session, _capabilities), do: {:ok, "Chatterbex"}

    @impl true
    def render(assigns) do
      ~H"""
      <.live_table
        id="chatterbex-servers"
        dom_id="chatterbex-servers"
        page={@page}
        title="Speech servers"
        row_fetcher={&Servers.fetch/2}
        rows_name="servers"
      >
        <:col :let={row} field={:name} header="Server" sortable={:asc}><%= row.name %></:col>
        <:col field={:model} />
        <:col field={:status} />
        <:col field={:device} />
        <:col field={:open} text_align="right" sortable={:desc} />
        <:col field={:waiting} text_align="right" sortable={:desc} />
        <:col field={:running} text_align="right" />
        <:col :let={row} field={:first_audio} header="First audio (ms)" text_align="right" sortable={:desc}>
          <%= Servers.figure(row.first_audio, 0) %>
        </:col>
        <:col :let={row} field={:rtf} header="RTF" text_align="right" sortable={:desc}>
          <%= Servers.figure(row.rtf, 2) %>
        </:col>
        <:col :let={row} field={:tokens_per_second} header="Tokens/s" text_align="right" sortable={:desc}>
          <%= Servers.figure(row.tokens_per_second, 1) %>
        </:col>
        <:col field={:calls} text_align="right" sortable={:desc} />
        <:col field={:errors} text_align="right" sortable={:desc} />
        <:col field={:fallbacks} text_align="right" sortable={:desc} />
        <:col field={:crashes} text_align="right" sortable={:desc} />
      </.live_table>
      """
    end
  end
end
