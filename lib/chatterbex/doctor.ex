defmodule Chatterbex.Doctor do
  @moduledoc """
  Checks everything that Chatterbex needs on this machine, and says how to fix what does not work.

      mix chatterbex.doctor

  prints the checks. In a release, run `bin/my_app eval 'Chatterbex.Doctor.run!()'`.

  It checks

    * Elixir and OTP, and the native libraries
    * Python: the environment, its interpreter, and its shared library, which it opens in this VM
    * the packages: whether all files are those that `mix chatterbex.setup` installed, and whether they load
    * the devices: whether you can use each, and whether parts of a model's work run on it, in a separate process
    * the files of the models
    * disk and memory

  It changes nothing, needs no network, and works without starting the application. It takes a few seconds, most of
  them to import PyTorch.
  """

  alias Chatterbex.{Error, Options, Python}
  alias Chatterbex.Doctor.{Devices, Environment, InstalledModels, Platform}

  @typedoc """
  The result of one check.

    * `status` - `:ok`; `:warning`, it works, but there is something to know; `:failed`, it is set up but does not work;
      `:not_set_up`, it is not installed, which is not a failure
    * `remedy` - what to do, as a command or a sentence; `nil` if there is nothing to do
    * `details` - further facts, for programs
  """
  @type check :: %{
          section: :system | :native | :python | :packages | :device | :model | :disk | :memory | :settings,
          name: String.t(),
          status: :ok | :warning | :failed | :not_set_up,
          message: String.t(),
          remedy: String.t() | nil,
          details: map
        }

  @typedoc "`ok` is true if everything that is set up works, that is, if no check failed."
  @type report :: %{ok: boolean, home: Path.t(), checks: [check]}

  @names [:home, :verify, :timeout, :report]

  @doc """
  Runs all checks and returns them.

  ## Options

    * `:home` - the folder that you gave to `mix chatterbex.setup --path`, a string. Default: `Chatterbex.Python.home/0`.
    * `:verify` - `true` also compares the checksums of the models' files, which are gigabytes. Default: `false`.
    * `:timeout` - milliseconds that a process may take to import PyTorch or to test a device. Default: 180 000.
    * `:report` - a function that is called with each check as soon as it is done.

  The only error is `:invalid_option`.

  ## Examples

      {:ok, %{ok: true, checks: checks}} = Chatterbex.Doctor.run()
      for %{status: :failed} = check <- checks, do: {check.name, check.remedy}

      iex> {:error, error} = Chatterbex.Doctor.run(hoem: "/srv/speech")
      iex> error.message
      "unknown option :hoem. Did you mean :home? The options are :home, :verify, :timeout, :report."
  """
  @spec run(keyword) :: {:ok, report} | {:error, Error.t()}
  def run(options \\ []) do
    with :ok <- check(options) do
      context = %{
        home: Python.home(home: options[:home]),
        python: nil,
        torch: false,
        verify: options[:verify] == true,
        timeout: options[:timeout] || 180_000
      }

      report = options[:report] || fn _check -> :ok end

      {checks, _context} =
        Enum.flat_map_reduce(stages(), context, fn stage, context ->
          {checks, context} = stage.(context)
          Enum.each(checks, report)
          {checks, context}
        end)

      {:ok, %{ok: not Enum.any?(checks, &(&1.status == :failed)), home: context.home, checks: checks}}
    end
  end

  @doc """
  The same as `run/1`, but prints the checks to the standard output, and raises if one failed. Use it with `eval` in a
  release.

  ## Examples

      iex> Chatterbex.Doctor.run!(verify: "yes")
      ** (Chatterbex.Error) option :verify must be true or false, got "yes"
  """
  @spec run!(keyword) :: report
  def run!(options \\ []) do
    case run(Keyword.put_new(options, :report, &IO.puts(line(&1)))) do
      {:ok, report} ->
        IO.puts("\n" <> summary(report))
        if report.ok, do: report, else: raise(failure(report))

      {:error, error} ->
        raise error
    end
  end

  @labels [ok: "ok", warning: "warning", failed: "FAILED", not_set_up: "not set up"]

  # A check as a line to read, and its remedy on another.
  @doc false
  @spec line(check) :: String.t()
  def line(check) do
    remedy = if check.remedy, do: "\n#{String.duplicate(" ", 12)}-> #{check.remedy}", else: ""
    label = String.pad_trailing(@labels[check.status], 12)

    "#{label}#{String.pad_trailing(check.name, 22)}  #{String.replace(check.message, "\n", "\n" <> String.duplicate(" ", 36))}#{remedy}"
  end

  @doc false
  @spec summary(report) :: String.t()
  def summary(report) do
    count = fn status -> Enum.count(report.checks, &(&1.status == status)) end

    cond do
      not report.ok ->
        "#{count.(:failed)} of the checks failed: see above for what to do."

      not Enum.any?(report.checks, &(&1.section == :python and &1.status == :ok)) ->
        "Nothing is set up yet."

      count.(:warning) > 0 ->
        "Everything that is set up works, with #{count.(:warning)} warnings."

      true ->
        "Everything that is set up works."
    end
  end

  defp failure(report) do
    failed = for %{status: :failed, name: name} <- report.checks, do: name

    Error.new(:not_set_up, "not everything that is set up works: #{Enum.join(failed, ", ")}", %{
      failed: failed
    })
  end

  defp stages do
    [
      &Platform.machine/1,
      &Platform.native/1,
      &Environment.python/1,
      &Environment.libpython/1,
      &Environment.packages/1,
      &Environment.voice/1,
      &Environment.torch/1,
      &Devices.devices/1,
      &InstalledModels.models/1,
      &Platform.resources/1,
      &Platform.settings/1
    ]
  end

  defp check(options) do
    with :ok <- Options.known(options, @names) do
      case Enum.find(options, fn {name, value} -> not valid?(name, value) end) do
        nil -> :ok
        invalid -> {:error, invalid(invalid)}
      end
    end
  end

  defp valid?(_name, nil), do: true
  defp valid?(:home, value), do: is_binary(value) and value != ""
  defp valid?(:verify, value), do: is_boolean(value)
  defp valid?(:timeout, value), do: is_integer(value) and value > 0
  defp valid?(:report, value), do: is_function(value, 1)

  @expected [
    home: "a string that is not empty",
    verify: "true or false",
    timeout: "a number of milliseconds from 1 on",
    report: "a function of one argument"
  ]

  defp invalid({name, value}) do
    Error.new(
      :invalid_option,
      "option #{inspect(name)} must be #{@expected[name]}, got #{inspect(value)}",
      %{option: name, got: value}
    )
  end
end
