[
  inputs: ["{mix,.formatter}.exs", "{config,lib,test,bench,examples}/**/*.{ex,exs}", "native/fuzz/*.exs"],
  line_length: 110
]
