using System.Runtime.CompilerServices;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

/// <content>
/// Whether a READ waits on the thread that serves its queue, or in a ring with others (<see cref="QueuedReads"/>).
/// </content>
/// <remarks>
/// One that finds its data in memory is done at once, and so is one that nobody waits behind. Which it is, RWF_NOWAIT tells, for some
/// percent more than a plain read: a file whose data were there several times in a row is asked now and then only.
/// </remarks>
public sealed unsafe partial class PassthroughFileSystem
{
    // After so many answers in a row a file is taken to be in memory, and so many reads do not ask; nor do they after one that had nobody
    // behind it, if the disk was not needed when the file was last asked. All arbitrary.
    private const int WarmAnswers = 8;
    private const int ReadsUnasked = 31;

    // With one other it is not worth waking threads.
    private const int MuchCompany = 2;

    // Where three or more wait for the disk, one that is woken by its reply asks for the next before the others do, and is alone for
    // this moment only: so many in a row have to be, until one waits where it is (arbitrary).
    private const int ReadsUntilAlone = 16;

    // Of this session: those of others wait behind nobody here.
    private int _queuedCount;

    // Not exact: threads change it as they please.
    private int _companyExpected;

    private QueuedReads? Reads => _share.Reads;

    /// <summary>The ring has read, and does not use the file any more.</summary>
    internal void EndQueued(OpenFile* file)
    {
        _files.EndUse(file);
        Interlocked.Decrement(ref _queuedCount);
    }

    /// <summary>Reads, and waits for the disk if need be.</summary>
    internal static Result<int> ReadPlainly(OpenFile* file, IoVectorList destination, long offset) =>
        Transfer(file, destination, offset, isWrite: false, ReadWriteFlags.None);

    private OpenFileFlags HowToWait(Node* node, Mount mount, int flags)
    {
        if (Reads is null || node->IsDirectory || mount.IsNetwork)
        {
            return OpenFileFlags.None;
        }

        return (flags & OpenFlags.Direct) != 0 ? OpenFileFlags.Direct
            : mount.CanAsk ? OpenFileFlags.MayAsk
            : OpenFileFlags.None;
    }

    // Reads without waiting, or has the ring read; then the use of the file is over, or the read's. False: nothing was done.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private bool TryReadCarefully(
        OpenFile* file, IoVectorList destination, long offset, RequestContext context, out ValueTask<Result<int>> task)
    {
        task = default;
        if ((file->Flags & (OpenFileFlags.MayAsk | OpenFileFlags.Direct)) == 0)
        {
            // Only after two thousand million reads.
            file->PlainReads = int.MaxValue;
            return false;
        }

        int company = Volatile.Read(ref _queuedCount);
        if (company >= MuchCompany)
        {
            _companyExpected = ReadsUntilAlone;
        }
        else if (company + context.Company < MuchCompany && --_companyExpected < 0)
        {
            _companyExpected = 0;
            file->PlainReads = file->Warmth == OpenFile.Cold ? 0 : ReadsUnasked;
            return false;
        }

        if ((file->Flags & OpenFileFlags.Direct) == 0)
        {
            switch (LookInMemory(file, destination, offset, out int length))
            {
                case InMemory.Yes:
                    _files.EndUse(file);
                    task = new(length);
                    return true;

                case InMemory.Unknown:
                    return false;
            }
        }

        file->PlainReads = 0;
        Interlocked.Increment(ref _queuedCount);
        if (destination.Count > MaxPieces || !Reads!.TryStart(this, file, destination, offset, out task))
        {
            Interlocked.Decrement(ref _queuedCount);
            return false;
        }

        context.EndsSoon = true;
        return true;
    }

    // Reads if that needs no disk.
    private InMemory LookInMemory(OpenFile* file, IoVectorList destination, long offset, out int length)
    {
        length = 0;
        if (destination.Count > MaxPieces)
        {
            return InMemory.Unknown;
        }

        SyscallResult read = FileIO.Preadv2(file->Descriptor, destination.Vectors, offset, ReadWriteFlags.NoWait);
        if (read.Error == Errno.EOPNOTSUPP)
        {
            _mounts[file->Mount].CanAsk = false;
            file->PlainReads = int.MaxValue;
            return InMemory.Unknown;
        }

        if (read.IsError && read.Error != Errno.EAGAIN)
        {
            // It shows again.
            return InMemory.Unknown;
        }

        if (read.IsError || !IsAll(file, destination, offset, read.Count))
        {
            file->Warmth = OpenFile.Cold;
            return InMemory.No;
        }

        length = read.Count;
        file->Warmth = (byte)Math.Min(file->Warmth + 1, WarmAnswers);
        file->PlainReads = file->Warmth == WarmAnswers ? ReadsUnasked : 0;
        return InMemory.Yes;
    }

    // A read that does not wait is short where the file ends, and where a page is not in memory.
    private static bool IsAll(OpenFile* file, IoVectorList destination, long offset, int length)
    {
        if (length == destination.Length || ((ulong)(offset + length) % PageSize) != 0)
        {
            return true;
        }

        byte beyond;
        SyscallResult more = FileIO.Preadv2(
            file->Descriptor, [new IoVector(&beyond, 1)], offset + length, ReadWriteFlags.NoWait);
        return !more.IsError && more.Count == 0;
    }

    private enum InMemory
    {
        Yes,
        No,
        Unknown,
    }
}
