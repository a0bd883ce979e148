using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Cli.Bench.Workloads;

/// <summary>CREATE, WRITE of 4 KiB, RELEASE, UNLINK and FORGET.</summary>
/// <param name="owner">The user and group that ask.</param>
internal sealed class CreateCycle(uint owner) : Workload
{
    private const uint Mode = 0x81A4;

    public override IEnumerator<Request> Run(Lane lane)
    {
        lane.Owner = owner;
        byte[] name = Name("file", lane.Number);
        byte[] data = Pattern.Page(lane.Number).ToArray();
        while (true)
        {
            var create = new FuseCreateIn { Flags = OpenFlags.ReadWrite, Mode = Mode };
            yield return lane.Ask(FuseOpcode.Create, Folder, create, 144, name);
            FuseCreateOut created = lane.Reply<FuseCreateOut>();
            FuseAttributes attributes = created.Entry.Attributes;
            lane.Expect(
                attributes.Mode == Mode && attributes.UserId == owner && attributes.GroupId == owner && attributes.Size == 0,
                "is not about a new file of the caller");
            NodeId node = created.Entry.NodeId;
            HandleId handle = created.Open.Handle;
            yield return lane.Ask(
                FuseOpcode.Write, node, new FuseWriteIn { Handle = handle, Size = (uint)data.Length }, 8, data);
            lane.Expect(lane.Reply<FuseWriteOut>().Size == (uint)data.Length, "has written less than all");
            yield return lane.Ask(FuseOpcode.Release, node, new FuseReleaseIn { Handle = handle }, 0);
            lane.Empty();
            yield return lane.Ask(FuseOpcode.Unlink, Folder, 0, name);
            lane.Empty();
            lane.Forget(node);
            lane.Done();
        }
    }
}

/// <summary>Workloads on one file that is open.</summary>
internal abstract class OnOneFile : Workload
{
    private const string FileName = "data";

    private long _made;

    /// <summary>Bytes of the file.</summary>
    protected virtual long Length => 64 << 20;

    /// <summary>How it is opened.</summary>
    protected virtual int Flags => OpenFlags.ReadWrite;

    protected NodeId Node { get; private set; }

    protected HandleId Handle { get; private set; }

    protected string Path => HostPath(FileName);

    public override bool MakeMore()
    {
        if (_made == Length)
        {
            return false;
        }

        byte[] part = new byte[1 << 20];
        Fill(part, _made);
        using var file = new FileStream(Path, FileMode.Append, FileAccess.Write, FileShare.Read, bufferSize: 0);
        file.Write(part);
        _made += part.Length;
        return true;
    }

    /// <summary>What the file has at the start; zeros if nothing is done.</summary>
    protected virtual void Fill(Span<byte> part, long offset)
    {
    }

    protected override void LookUp(DaemonSession session, int lanes)
    {
        Node = Known(session.Client.Lookup(Folder, FileName), FileName).NodeId;
        Handle = Known(session.Client.Open(Node, (uint)Flags), FileName).Handle;
    }

    protected override void CloseAll(FuseClient client)
    {
        _ = client.Release(Node, Handle);
        client.Forget(Node, 1);
    }
}

/// <summary>Which parts of the file lanes go to.</summary>
internal sealed class Places(int bytes, bool isRandom, long length)
{
    private long _next = -1;

    /// <summary>Bytes of a part.</summary>
    public int Bytes => bytes;

    /// <summary>The next offset for a lane. All lanes together go through the file, or each goes where chance has it.</summary>
    /// <param name="state">The lane's, which is not zero.</param>
    public long Next(ref ulong state)
    {
        long parts = length / bytes;
        if (!isRandom)
        {
            return Interlocked.Increment(ref _next) % parts * bytes;
        }

        // xorshift, Marsaglia 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return (long)(state % (ulong)parts) * bytes;
    }
}

/// <summary>READ.</summary>
internal class Reads(int bytes, bool isRandom, long length = 64 << 20) : OnOneFile
{
    private readonly Places _places = new(bytes, isRandom, length);

    protected override long Length => length;

    protected override void Fill(Span<byte> part, long offset) => Pattern.Fill(part, offset / Pattern.PageBytes);

    public override IEnumerator<Request> Run(Lane lane)
    {
        ulong state = (ulong)lane.Number + 1;
        while (true)
        {
            long offset = _places.Next(ref state);
            var arguments = new FuseReadIn { Handle = Handle, Offset = (ulong)offset, Size = (uint)_places.Bytes };
            yield return lane.Ask(FuseOpcode.Read, Node, arguments, _places.Bytes);
            lane.Expect(lane.Content().Length == _places.Bytes, "is shorter than what was asked for");
            lane.Expect(Pattern.IsAt(lane.Content(), offset / Pattern.PageBytes), "has other bytes than the file");
            lane.Done();
        }
    }
}

/// <summary>READ of what the host's kernel has to fetch, if the directory is on a disk.</summary>
/// <param name="bytes">Bytes of each.</param>
/// <param name="isDirect">Whether the guest asks for O_DIRECT, which a daemon passes on if it is told to.</param>
internal sealed class ColdReads(int bytes, bool isDirect) : Reads(bytes, isRandom: true, FileLength)
{
    // More than is read in a slice, so that hardly anything is met twice.
    private const long FileLength = 1 << 30;

    protected override int Flags => isDirect ? OpenFlags.ReadOnly | OpenFlags.Direct : base.Flags;

    public override void BeforeSlice()
    {
        using SafeFileHandle file = File.OpenHandle(Path);
        // What is not on the disk yet stays.
        RandomAccess.FlushToDisk(file);
        _ = Files.PosixFadvise((int)file.DangerousGetHandle(), 0, 0, FileAdvice.DontNeed).ThrowIfError($"drop what is cached of '{Path}'");
    }
}

/// <summary>WRITE over zeros that are there, or over the same bytes.</summary>
internal sealed class Writes(int bytes, bool isRandom) : OnOneFile
{
    private const long FileLength = 64 << 20;

    private readonly Places _places = new(bytes, isRandom, FileLength);
    private readonly bool[] _isWritten = new bool[FileLength / bytes];

    public override IEnumerator<Request> Run(Lane lane)
    {
        ulong state = (ulong)lane.Number + 1;
        byte[] data = new byte[_places.Bytes];
        while (true)
        {
            long offset = _places.Next(ref state);
            Pattern.Fill(data, offset / Pattern.PageBytes);
            var arguments = new FuseWriteIn { Handle = Handle, Offset = (ulong)offset, Size = (uint)data.Length };
            yield return lane.Ask(FuseOpcode.Write, Node, arguments, 8, data);
            lane.Expect(lane.Reply<FuseWriteOut>().Size == (uint)data.Length, "has written less than all");
            _isWritten[offset / _places.Bytes] = true;
            lane.Done();
        }
    }

    protected override void Check()
    {
        byte[] part = new byte[_places.Bytes];
        using FileStream file = File.OpenRead(Path);
        for (int i = 0; i < _isWritten.Length; i++)
        {
            file.ReadExactly(part);
            if (_isWritten[i] && !Pattern.IsAt(part, (long)i * _places.Bytes / Pattern.PageBytes))
            {
                throw new BadReplyException($"WRITE at {(long)i * _places.Bytes} was answered, and the file has other bytes there");
            }
        }
    }
}
