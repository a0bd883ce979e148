using System.Buffers;
using Causeway.Linux;

namespace Causeway.Driver;

/// <summary>Whether mapped bytes may be written.</summary>
public enum MappingAccess
{
    /// <summary>They may not: writing ends the process.</summary>
    ReadOnly,

    /// <summary>They may; the file is open for writing.</summary>
    ReadWrite,
}

/// <summary>
/// A part of a file as memory, as MAP_SHARED gives it: what is stored here is in the file, at once and without a request, for the host
/// and for everybody else who has it mapped. Interlocked operations work across guests.
/// </summary>
/// <remarks>
/// <para>When somebody truncates the file meanwhile, what is gone reads as zeros here, and what is written there is lost;
/// <see cref="IsIntact"/> says whether something was touched that was not there. Bytes behind the end of the file, in its last
/// page, are not noticed; the host does not either.</para>
/// <para>The mapping takes whole ranges of 2 MiB from the window until it is disposed of. Nothing that was taken from it, spans and
/// memory alike, may be used afterwards: the addresses may be another file then. It survives the client and the daemon.</para>
/// </remarks>
public sealed unsafe class VirtioFsMapping : MemoryManager<byte>
{
    private readonly ClientWindow _window;
    private readonly MappedPart _part;
    private readonly string _path;
    private int _isDisposed;

    internal VirtioFsMapping(ClientWindow window, MappedPart part, string path, bool isWritable)
    {
        _window = window;
        _part = part;
        _path = path;
        IsWritable = isWritable;
    }

    /// <summary>Whether the bytes may be written.</summary>
    public bool IsWritable { get; }

    /// <summary>How many bytes there are.</summary>
    public int Length => _part.Length;

    /// <summary>
    /// Whether everything was there that was touched, in the ranges that the bytes are in. Once false it stays so: map anew.
    /// </summary>
    public bool IsIntact
    {
        get
        {
            ObjectDisposedException.ThrowIf(_isDisposed != 0, this);
            return !_window.AreHit(_part.First, _part.Count);
        }
    }

    /// <summary>The bytes.</summary>
    /// <exception cref="InvalidOperationException">They may only be read: <see cref="ReadOnlyMemory"/>.</exception>
    public override Memory<byte> Memory =>
        IsWritable ? CreateMemory(Length) : throw new InvalidOperationException($"'{_path}' is mapped for reading only.");

    /// <summary>The bytes, to be read.</summary>
    public ReadOnlyMemory<byte> ReadOnlyMemory => CreateMemory(Length);

    /// <summary>The bytes. Writing to them when <see cref="IsWritable"/> is false ends the process.</summary>
    public override Span<byte> GetSpan()
    {
        ObjectDisposedException.ThrowIf(_isDisposed != 0, this);
        return new Span<byte>(_part.First.Address + _part.Offset, Length);
    }

    /// <summary>Fails when something was touched that was not there: to be called after use, like the end of a transaction.</summary>
    /// <exception cref="VirtioFsException">EIO: the file was truncated meanwhile, or the session has ended.</exception>
    public void ThrowIfNotIntact() => ClientSession.Check(IsIntact ? Errno.Success : Errno.EIO, "mmap", _path);

    /// <inheritdoc/>
    public override MemoryHandle Pin(int elementIndex = 0)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)elementIndex, (uint)Length, nameof(elementIndex));
        ObjectDisposedException.ThrowIf(_isDisposed != 0, this);
        return new MemoryHandle(_part.First.Address + _part.Offset + elementIndex);
    }

    /// <inheritdoc/>
    public override void Unpin()
    {
    }

    /// <summary>Ends the mapping.</summary>
    public void Dispose() => ((IDisposable)this).Dispose();

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing && Interlocked.Exchange(ref _isDisposed, 1) == 0)
        {
            _window.Unmap(_part.First, _part.Count);
        }
    }
}

/// <summary>Ranges of the window, and which bytes in them are meant.</summary>
internal readonly record struct MappedPart(WindowRange First, int Count, int Offset, int Length);
