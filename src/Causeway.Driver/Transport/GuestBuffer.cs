using Causeway.Virtio;

namespace Causeway.Driver;

/// <summary>
/// A payload buffer in guest memory: what READ fills and WRITE sends, without a copy on the way. Rented from a
/// <see cref="VirtioFsTransport"/>; it goes back by <see cref="Return"/>, or with the call it is attached to.
/// </summary>
public sealed unsafe class GuestBuffer
{
    private readonly TransportPool<GuestBuffer> _pool;

    internal GuestBuffer(TransportPool<GuestBuffer> pool, byte* pointer, GuestAddress address, int length)
    {
        _pool = pool;
        Pointer = pointer;
        Address = address;
        Length = length;
    }

    /// <summary>Where it is in this process, on a page boundary. For system calls.</summary>
    public byte* Pointer { get; }

    /// <summary>Its length in bytes.</summary>
    public int Length { get; }

    /// <summary>
    /// Its bytes. What the device wrote it can still change: copy what is to be checked, and check the copy.
    /// </summary>
    public Span<byte> Span => new(Pointer, Length);

    /// <summary>Where it is for the device.</summary>
    internal GuestAddress Address { get; }

    /// <summary>Gives the buffer back. Only for one that is not attached to a call.</summary>
    public void Return() => _pool.Return(this);
}

/// <summary>A part of a buffer.</summary>
/// <param name="Buffer">The buffer; null for no part at all.</param>
/// <param name="Offset">Where the part starts, in bytes.</param>
/// <param name="Length">Its length in bytes.</param>
public readonly record struct GuestPiece(GuestBuffer? Buffer, int Offset, int Length)
{
    /// <summary>The bytes of the part.</summary>
    public Span<byte> Span => Buffer is null ? [] : Buffer.Span.Slice(Offset, Length);

    internal bool IsValid =>
        Buffer is null || (Offset >= 0 && Length >= 0 && Offset <= Buffer.Length && Length <= Buffer.Length - Offset);

    internal GuestRange Range => new(new GuestAddress(Buffer!.Address.Value + (ulong)Offset), (ulong)Length);
}
