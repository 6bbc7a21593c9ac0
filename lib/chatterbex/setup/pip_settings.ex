defmodule Chatterbex.Setup.PipSettings do
  @moduledoc false
  # Passes pip's settings to uv, which does not read them: an index mirror is often set for pip only.

  # pip's option, the variables of uv that may already have it, and the one to set.
  @variables [
    {"index-url", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"], "UV_DEFAULT_INDEX"},
    {"extra-index-url", ["UV_INDEX", "UV_EXTRA_INDEX_URL"], "UV_INDEX"},
    {"find-links", ["UV_FIND_LINKS"], "UV_FIND_LINKS"},
    {"trusted-host", ["UV_INSECURE_HOST"], "UV_INSECURE_HOST"},
    {"cert", ["SSL_CERT_FILE"], "SSL_CERT_FILE"},
    {"timeout", ["UV_HTTP_TIMEOUT", "UV_REQUEST_TIMEOUT", "HTTP_TIMEOUT"], "UV_HTTP_TIMEOUT"},
    {"proxy", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"], "ALL_PROXY"}
  ]

  @doc "pip's settings from its configuration files, the weakest first, and from its variables in `environment`."
  @spec read([Path.t()], %{String.t() => String.t()}) :: %{String.t() => String.t()}
  def read(files, environment) do
    # This value tells pip to read no file.
    files = if environment["PIP_CONFIG_FILE"] == "/dev/null", do: [], else: files

    entries =
      for file <- files,
          {:ok, text} <- [File.read(file)],
          String.valid?(text),
          entry <- entries(text),
          do: entry

    # `pip install` reads both sections, and its own has priority, in whichever file it is.
    in_files = for section <- ["global", "install"], {^section, option, value} <- entries, do: {option, value}
    in_variables = for {"PIP_" <> name, value} <- environment, value != "", do: {option(name), value}
    Map.new(in_files ++ in_variables)
  end

  @doc "pip's settings as variables and flags for uv. uv's own settings in `environment` have priority."
  @spec for_uv(map, map) :: {%{String.t() => String.t()}, [String.t()]}
  def for_uv(settings, environment) do
    unset? = fn variable -> environment[variable] in [nil, ""] end

    set =
      for {option, variables, variable} <- @variables,
          value = value(option, settings[option]),
          Enum.all?(variables, unset?),
          into: %{},
          do: {variable, value}

    # uv uses the first index that has a package, pip the best of all. With hashes both are safe.
    best? = is_map_key(set, "UV_INDEX") and unset?.("UV_INDEX_STRATEGY")
    set = if best?, do: Map.put(set, "UV_INDEX_STRATEGY", "unsafe-best-match"), else: set
    {set, if(String.downcase(settings["no-index"] || "") in ~w(1 true yes on), do: ["--no-index"], else: [])}
  end

  # Parses an INI file like Python's configparser: [section], option = value, indented lines continue a value.
  defp entries(text) do
    text
    |> String.replace(~r/^[ \t]*([#;].*)?(\R|\z)/m, "")
    |> String.replace(~r/\R[ \t]+(?=\S)/, " ")
    |> String.split(~r/\R/)
    |> Enum.reduce({nil, []}, fn line, {section, entries} ->
      case Regex.run(~r/^\[(.+?)\]|^([\w-]+)\s*[=:]\s*(.*?)\s*$/, line) do
        [_line, section] -> {section, entries}
        [_line, "", name, value] -> {section, [{section, option(name), value} | entries]}
        nil -> {section, entries}
      end
    end)
    |> then(fn {_section, entries} -> Enum.reverse(entries) end)
  end

  defp option(name) do
    name = name |> String.downcase() |> String.replace("_", "-")
    if name == "default-timeout", do: "timeout", else: name
  end

  defp value(_option, nil), do: nil

  # pip skips a missing folder; uv fails.
  defp value("find-links", text) do
    case text |> String.split() |> Enum.reject(&(Path.type(&1) == :absolute and not File.exists?(&1))) do
      [] -> nil
      places -> Enum.join(places, ",")
    end
  end

  defp value("cert", path), do: if(File.exists?(path), do: path)

  defp value(option, text) when option in ["extra-index-url", "trusted-host"],
    do: text |> String.split() |> Enum.join(" ")

  defp value(_option, text), do: text
end
