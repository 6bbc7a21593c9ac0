# The tests really speak: they need what `mix chatterbex.setup` provides, and say so instead of failing one by one.
case Chatterbex.Python.find() do
  {:ok, _python} ->
    # Long, for busy machines: whatever a test waits for has its own timeout.
    # Browser tests are a separate leg of `bin/test`: mix test --only browser test/browser
    # The test that compiles all of the Rust runs in `bin/test` only.
    ExUnit.start(capture_log: true, timeout: 300_000, exclude: [:browser, :cargo])

  {:error, error} ->
    IO.puts(
      :stderr,
      "The tests cannot run: #{error.message}\n`bin/test` installs what is missing and runs everything."
    )

    System.halt(1)
end
