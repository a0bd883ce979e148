using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Causeway.Driver;

/// <summary>A part of a path as it is looked for, valid as long as the path.</summary>
internal readonly ref struct NameText
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal NameText(ReadOnlySpan<char> characters)
    {
        Characters = characters;
        Short = IsShort ? new ShortText(characters) : default;
    }

    internal ReadOnlySpan<char> Characters { get; }

    /// <summary>All of it, where it is short.</summary>
    internal ShortText Short { get; }

    internal bool IsShort => Length <= ShortText.Capacity;

    internal int Length => Characters.Length;

    /// <summary>
    /// A hash of a name in a directory, which is not zero. Both ways to it have a key that is made by the process: who names files
    /// cannot make them collide.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal int HashIn(CachedNode directory)
    {
        ulong key = directory.HashKey;
        ulong hash = IsShort ? Short.Hash(key) + (ulong)Length : (uint)string.GetHashCode(Characters) ^ key;
        int folded = (int)hash ^ (int)(hash >> 32);
        return folded == 0 ? 1 : folded;
    }
}

/// <summary>
/// A name of up to 16 characters in four numbers, so that copying, hashing and comparing take a few instructions and no loop. Two names
/// of the same length are the same if these are: the beginning and the end, which overlap unless it is as long as can be.
/// </summary>
internal readonly struct ShortText : IEquatable<ShortText>
{
    internal const int Capacity = 16;

    private readonly ulong _first;
    private readonly ulong _second;
    private readonly ulong _third;
    private readonly ulong _fourth;

    /// <param name="text">At most <see cref="Capacity"/> characters.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal ShortText(ReadOnlySpan<char> text)
    {
        ReadOnlySpan<byte> bytes = MemoryMarshal.AsBytes(text);
        if (bytes.Length >= 16)
        {
            _first = MemoryMarshal.Read<ulong>(bytes);
            _second = MemoryMarshal.Read<ulong>(bytes[8..]);
            _third = MemoryMarshal.Read<ulong>(bytes[^16..]);
            _fourth = MemoryMarshal.Read<ulong>(bytes[^8..]);
        }
        else if (bytes.Length >= 8)
        {
            _first = MemoryMarshal.Read<ulong>(bytes);
            _second = MemoryMarshal.Read<ulong>(bytes[^8..]);
        }
        else if (bytes.Length >= 4)
        {
            _first = MemoryMarshal.Read<uint>(bytes);
            _second = MemoryMarshal.Read<uint>(bytes[^4..]);
        }
        else if (bytes.Length >= 2)
        {
            _first = text[0];
        }
    }

    /// <summary>By products of 128 bits, of which each bit of the text changes about half, in a way that only who knows the key can say.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal ulong Hash(ulong key) =>
        Mix(_first ^ key, _second ^ BitOperations.RotateLeft(key, 23))
        ^ Mix(_third ^ BitOperations.RotateLeft(key, 41), _fourth ^ BitOperations.RotateLeft(key, 11));

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool Equals(ShortText other) =>
        ((_first ^ other._first) | (_second ^ other._second) | (_third ^ other._third) | (_fourth ^ other._fourth)) == 0;

    /// <inheritdoc/>
    public override bool Equals(object? obj) => obj is ShortText other && Equals(other);

    /// <inheritdoc/>
    public override int GetHashCode() => (int)Hash(0x9E37_79B9_7F4A_7C15);

    private static ulong Mix(ulong left, ulong right)
    {
        ulong high = Math.BigMul(left, right, out ulong low);
        return high ^ low;
    }
}
