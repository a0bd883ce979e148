using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Threading.Tasks.Sources;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

/// <summary>One READ that waits for a disk. Used again and again.</summary>
internal sealed unsafe class QueuedRead(QueuedReads reads, uint token) : IValueTaskSource<Result<int>>
{
    private PassthroughFileSystem? _owner;
    private OpenFile* _file;
    private IoVectorList _destination;
    private LateResult<Result<int>> _late;

    /// <summary>The next in whichever list this one is in.</summary>
    public QueuedRead? Next { get; set; }

    /// <summary>Names it in the ring.</summary>
    public uint Token => token;

    /// <summary>The file.</summary>
    public int Descriptor => _file->Descriptor;

    /// <summary>Where the bytes go. The list stays where it is until the request is answered.</summary>
    public IoVector* Pieces => (IoVector*)Unsafe.AsPointer(ref MemoryMarshal.GetReference(_destination.Vectors));

    /// <summary>In how many pieces.</summary>
    public int PieceCount => _destination.Count;

    /// <summary>The position in the file.</summary>
    public long Offset { get; private set; }

    /// <summary>Begins.</summary>
    public ValueTask<Result<int>> Begin(PassthroughFileSystem owner, OpenFile* file, IoVectorList destination, long offset)
    {
        _owner = owner;
        _file = file;
        _destination = destination;
        Offset = offset;
        _late.Reset();
        return new ValueTask<Result<int>>(this, _late.Version);
    }

    /// <summary>The ring has an answer. Answers the request, on the calling thread as a rule.</summary>
    /// <param name="result">How many bytes were read, or a negated errno.</param>
    public void Complete(int result)
    {
        // The ring gives these where a thread would have waited or begun anew.
        Result<int> answer = result is -(int)Errno.EAGAIN or -(int)Errno.EINTR
            ? PassthroughFileSystem.ReadPlainly(_file, _destination, Offset)
            : result < 0 ? PassthroughFileSystem.Answer((Errno)(-result)) : result;
        _owner!.EndQueued(_file);
        _owner = null;
        _late.SetResult(answer);
    }

    // Called once, and last.
    Result<int> IValueTaskSource<Result<int>>.GetResult(short token)
    {
        Result<int> result = _late.GetResult(token);
        reads.Free(this);
        return result;
    }

    ValueTaskSourceStatus IValueTaskSource<Result<int>>.GetStatus(short token) => _late.GetStatus(token);

    void IValueTaskSource<Result<int>>.OnCompleted(
        Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _late.OnCompleted(continuation, state, token);
}
