for bench <- ~w(bridge first_sound isolation speech streaming ticks),
    do: Code.require_file("#{bench}.exs", __DIR__)
