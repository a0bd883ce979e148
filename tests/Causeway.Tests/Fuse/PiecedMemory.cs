using System.Runtime.InteropServices;
using Causeway.Linux;

namespace Causeway.Tests.Fuse;

/// <summary>
/// Bytes in native memory, cut into pieces that do not touch each other: what a descriptor chain looks like to a session.
/// Guard bytes around each piece show a write that goes astray.
/// </summary>
internal sealed unsafe class PiecedMemory : IDisposable
{
    private const int Guard = 24;
    private const byte GuardByte = 0xc3;

    private readonly byte* _memory;
    // One array to be given away, and narrowed; one for the eyes of the test, which stays as it is.
    private readonly IoVector* _vectors;
    private readonly IoVector* _ownVectors;
    private readonly int _size;
    private readonly int[] _lengths;

    public PiecedMemory(int length, params int[] cuts)
    {
        int[] ends = [.. cuts.Where(cut => cut >= 0 && cut <= length).Order(), length];
        _lengths = new int[ends.Length];
        _size = length + (Guard * (ends.Length + 1));
        _memory = (byte*)NativeMemory.Alloc((nuint)_size);
        _vectors = (IoVector*)NativeMemory.Alloc((nuint)ends.Length, (nuint)sizeof(IoVector));
        _ownVectors = (IoVector*)NativeMemory.Alloc((nuint)ends.Length, (nuint)sizeof(IoVector));
        new Span<byte>(_memory, _size).Fill(GuardByte);
        int start = 0;
        for (int i = 0; i < ends.Length; i++)
        {
            _lengths[i] = ends[i] - start;
            start = ends[i];
        }

        Length = length;
        _ = ListIn(_ownVectors);
    }

    public PiecedMemory(ReadOnlySpan<byte> content, params int[] cuts)
        : this(content.Length, cuts)
    {
        Write(content);
    }

    public int Length { get; }

    /// <summary>The list, made anew each time, because a session narrows what it is given.</summary>
    public IoVectorList List => ListIn(_vectors);

    private IoVectorList OwnList => new(_ownVectors, _lengths.Length, Length);

    /// <summary>The first bytes, put together.</summary>
    public byte[] Read(int length)
    {
        byte[] bytes = new byte[length];
        Assert.Equal(length, OwnList.CopyTo(0, bytes));
        return bytes;
    }

    /// <summary>Sets the first bytes.</summary>
    public void Write(ReadOnlySpan<byte> bytes) => OwnList.CopyFrom(0, bytes);

    public void Fill(byte value)
    {
        foreach (IoVector piece in OwnList.Vectors)
        {
            new Span<byte>(piece.Address, (int)piece.Length).Fill(value);
        }
    }

    /// <summary>Whether all bytes around the pieces are as they were.</summary>
    public bool IsGuardIntact()
    {
        byte* at = _memory;
        foreach (int length in _lengths)
        {
            if (new ReadOnlySpan<byte>(at, Guard).ContainsAnyExcept(GuardByte))
            {
                return false;
            }

            at += Guard + length;
        }

        return !new ReadOnlySpan<byte>(at, Guard).ContainsAnyExcept(GuardByte);
    }

    public void Dispose()
    {
        NativeMemory.Free(_memory);
        NativeMemory.Free(_vectors);
        NativeMemory.Free(_ownVectors);
    }

    private IoVectorList ListIn(IoVector* vectors)
    {
        byte* at = _memory + Guard;
        for (int i = 0; i < _lengths.Length; i++)
        {
            vectors[i] = new IoVector(at, (nuint)_lengths[i]);
            at += _lengths[i] + Guard;
        }

        return new IoVectorList(vectors, _lengths.Length, Length);
    }
}
