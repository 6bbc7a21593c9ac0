defmodule Chatterbex.Peer.CommandLine do
  @moduledoc false
  # How another VM like this one is started: under mix, in a release, and where `erl` is not in the PATH.

  alias Chatterbex.Error

  # Python computes on threads of its own: the guest's schedulers only pass messages on, and must not spin.
  @flags ~w(+S 2:2 +SDcpu 2:2 +SDio 2 +A 1 +sbwt none +sbwtdcpu none +sbwtdio none)

  # What the operating systems call their limit on the memory that a process may write to.
  @limited [{:unix, :linux}]

  @doc """
  The options of `:peer.start_link/1` that say what is started. `memory_limit` is in bytes, or `nil`.
  """
  @spec new(pos_integer | nil, {atom, atom}) :: {:ok, map} | {:error, Error.t()}
  def new(memory_limit, system \\ :os.type()) do
    root = List.to_string(:code.root_dir())
    bin = Path.join([root, "erts-#{:erlang.system_info(:version)}", "bin"])
    program = [Path.join(bin, "erlexec")]

    with {:ok, [program | before]} <- limited(program, memory_limit, system) do
      {:ok,
       %{
         exec: {String.to_charlist(program), Enum.map(before, &String.to_charlist/1)},
         args: Enum.map(@flags ++ boot(), &String.to_charlist/1),
         env:
           [
             {~c"ROOTDIR", String.to_charlist(root)},
             {~c"BINDIR", String.to_charlist(bin)},
             {~c"EMU", ~c"beam"},
             {~c"PROGNAME", ~c"erl"}
           ] ++ flags(System.get_env())
       }}
    end
  end

  @doc """
  The flags for every VM that the environment has, without those that only one VM can have: its name.
  """
  @spec flags(%{String.t() => String.t()}) :: [{charlist, charlist}]
  def flags(environment) do
    for name <- ~w(ERL_FLAGS ERL_AFLAGS ERL_ZFLAGS), flags = environment[name] do
      unnamed = Regex.replace(~r/(^|\s)-(s?name|remsh|setcookie)\s+\S+/, flags, "\\1")
      {String.to_charlist(name), String.to_charlist(unnamed)}
    end
  end

  defp limited(program, nil, _system), do: {:ok, program}

  defp limited(program, bytes, system) when system in @limited,
    do: {:ok, ["/bin/sh", "-c", "ulimit -d #{div(bytes, 1024)} && exec \"$@\"", "sh" | program]}

  defp limited(_program, _bytes, {_family, name}) do
    {:error,
     Error.new(
       :not_supported,
       "option :memory_limit needs Linux, where the system bounds what a process may write to; this is #{name}. " <>
         "Leave it out, or limit the container."
     )}
  end

  # A release boots its own applications: its guest must not. Beside its boot script lies one without.
  defp boot do
    case :init.get_argument(:boot) do
      {:ok, boots} ->
        clean = boots |> List.last() |> List.to_string() |> Path.dirname() |> Path.join("start_clean")
        if File.regular?(clean <> ".boot"), do: ["-boot", clean | boot_variables()], else: []

      :error ->
        []
    end
  end

  defp boot_variables do
    case :init.get_argument(:boot_var) do
      {:ok, variables} ->
        Enum.flat_map(variables, fn variable -> ["-boot_var" | Enum.map(variable, &to_string/1)] end)

      :error ->
        []
    end
  end
end
