using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace Causeway.Linux;

/// <summary>
/// A stream of bytes that lies in pieces, as a descriptor chain lays it out in guest memory. It borrows the pieces and
/// the array that lists them: both belong to whoever made the list and outlive the request it is made for.
/// </summary>
/// <remarks>
/// The memory is shared with a hostile peer. What is copied out is checked in the copy, never in place; system calls may
/// read or write the pieces directly, because the kernel does not trust their content either.
/// </remarks>
public readonly unsafe struct IoVectorList
{
    private readonly IoVector* _vectors;

    /// <summary>Makes a list.</summary>
    /// <param name="vectors">The pieces.</param>
    /// <param name="count">How many there are.</param>
    /// <param name="length">The sum of their lengths.</param>
    public IoVectorList(IoVector* vectors, int count, long length)
    {
        Debug.Assert(length == Sum(vectors, count), "the length is the sum of the pieces");
        _vectors = vectors;
        Count = count;
        Length = length;
    }

    /// <summary>How many pieces there are.</summary>
    public int Count { get; }

    /// <summary>How many bytes there are.</summary>
    public long Length { get; }

    /// <summary>The pieces, for a system call.</summary>
    public ReadOnlySpan<IoVector> Vectors => new(_vectors, Count);

    /// <summary>Copies bytes out, once.</summary>
    /// <param name="offset">The position in the stream of the first byte.</param>
    /// <param name="destination">Where the bytes go.</param>
    /// <returns>How many bytes were copied: fewer than asked when the stream ends.</returns>
    public int CopyTo(long offset, Span<byte> destination)
    {
        int copied = 0;
        for (int i = 0; i < Count && copied < destination.Length; i++)
        {
            long pieceLength = (long)_vectors[i].Length;
            if (offset >= pieceLength)
            {
                offset -= pieceLength;
                continue;
            }

            int length = (int)Math.Min(pieceLength - offset, destination.Length - copied);
            // SAFETY: offset + length <= the piece's length, and the piece is mapped while the request runs.
            new ReadOnlySpan<byte>(_vectors[i].Address + offset, length).CopyTo(destination[copied..]);
            copied += length;
            offset = 0;
        }

        return copied;
    }

    /// <summary>Copies bytes in.</summary>
    /// <param name="offset">The position in the stream of the first byte.</param>
    /// <param name="source">The bytes.</param>
    /// <returns>How many bytes were copied: fewer than given when the stream ends.</returns>
    public int CopyFrom(long offset, ReadOnlySpan<byte> source)
    {
        int copied = 0;
        for (int i = 0; i < Count && copied < source.Length; i++)
        {
            long pieceLength = (long)_vectors[i].Length;
            if (offset >= pieceLength)
            {
                offset -= pieceLength;
                continue;
            }

            int length = (int)Math.Min(pieceLength - offset, source.Length - copied);
            // SAFETY: offset + length <= the piece's length, and the piece is mapped while the request runs.
            source.Slice(copied, length).CopyTo(new Span<byte>(_vectors[i].Address + offset, length));
            copied += length;
            offset = 0;
        }

        return copied;
    }

    /// <summary>
    /// Narrows the list to a part of the stream, in place: the first and last piece of the borrowed array are shortened.
    /// The whole list must not be used afterwards.
    /// </summary>
    /// <param name="offset">The position of the first byte to keep; at most <see cref="Length"/>.</param>
    /// <param name="length">How many bytes to keep at most.</param>
    public IoVectorList Narrow(long offset, long length)
    {
        Debug.Assert(offset >= 0 && offset <= Length && length >= 0, "a part lies inside the whole");
        int first = 0;
        while (first < Count && offset >= (long)_vectors[first].Length)
        {
            offset -= (long)_vectors[first].Length;
            first++;
        }

        if (first == Count || length == 0)
        {
            return default;
        }

        _vectors[first].Address += offset;
        _vectors[first].Length -= (nuint)offset;
        long kept = 0;
        int end = first;
        while (end < Count && kept < length)
        {
            long piece = Math.Min((long)_vectors[end].Length, length - kept);
            _vectors[end].Length = (nuint)piece;
            kept += piece;
            end++;
        }

        return new IoVectorList(_vectors + first, end - first, kept);
    }

    /// <summary>Whether a structure of this size lies in the first piece, which is how nearly every guest lays it out.</summary>
    /// <param name="offset">The position in the stream.</param>
    /// <param name="length">The size in bytes.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool IsInFirstPiece(long offset, int length) => Count > 0 && (long)_vectors[0].Length >= offset + length;

    private static long Sum(IoVector* vectors, int count)
    {
        long sum = 0;
        for (int i = 0; i < count; i++)
        {
            sum += (long)vectors[i].Length;
        }

        return sum;
    }
}
