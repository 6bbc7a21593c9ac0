# The tests speak for real: they need what `mix chatterbex.setup` provides, and say so instead of failing one by one.
case Chatterbex.Python.find() do
  {:ok, _python} ->
    # Long, for machines that others use too: what a test waits for has an end of its own.
    # Those in a browser are a leg of their own in `bin/test`: mix test --only browser test/browser
    # One that compiles all of the project's Rust is left to `bin/test`, too.
    ExUnit.start(capture_log: true, timeout: 300_000, exclude: [:browser, :cargo])

  {:error, error} ->
    IO.puts(
      :stderr,
      "The tests cannot run: #{error.message}\n`bin/test` installs what is missing and runs everything."
    )

    System.halt(1)
end
