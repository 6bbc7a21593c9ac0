for bench <- ~w(bridge first_sound speech ticks), do: Code.require_file("#{bench}.exs", __DIR__)
