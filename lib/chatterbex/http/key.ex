defmodule Chatterbex.HTTP.Key do
  @moduledoc false
  # API keys, compared in constant time: as hashes, which all have the same length.

  @spec digest(String.t()) :: binary
  def digest(key), do: :crypto.hash(:sha256, key)

  @doc """
  Whether the value of an `Authorization` header carries the key of this digest. `nil` means that no key is required.
  """
  @spec valid?(binary | nil, String.t() | nil) :: boolean
  def valid?(nil, _header), do: true
  def valid?(_digest, nil), do: false

  def valid?(digest, header) do
    case String.split(header, " ", parts: 2, trim: true) do
      [scheme, key] ->
        String.downcase(scheme, :ascii) == "bearer" and
          :crypto.hash_equals(digest, digest(String.trim_leading(key, " ")))

      _no_key ->
        false
    end
  end
end
