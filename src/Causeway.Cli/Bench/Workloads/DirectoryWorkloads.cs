using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Fuse;

namespace Causeway.Cli.Bench.Workloads;

/// <summary>What a lane has read of a directory.</summary>
internal sealed class Listing(int capacity)
{
    /// <summary>Room for a reply: what readdir(3) asks for.</summary>
    public const int ReplyBytes = 32 << 10;

    private const int EntryHead = 24;

    private static readonly int s_plusBytes = Unsafe.SizeOf<NodeEntry>();

    private readonly FuseForgetOne[] _nodes = new FuseForgetOne[capacity];

    /// <summary>Names, without '.' and '..'.</summary>
    public int Count { get; private set; }

    /// <summary>Where to go on.</summary>
    public ulong Offset { get; private set; }

    /// <summary>The nodes that READDIRPLUS has looked up.</summary>
    public ReadOnlySpan<FuseForgetOne> Nodes => _nodes.AsSpan(0, Count);

    /// <summary>Begins again.</summary>
    public void Clear()
    {
        Count = 0;
        Offset = 0;
    }

    /// <summary>Takes a reply of READDIR or READDIRPLUS.</summary>
    /// <returns>Whether there may be more.</returns>
    public bool Add(Lane lane, bool isPlus)
    {
        ReadOnlySpan<byte> rest = lane.Content();
        bool isMore = !rest.IsEmpty;
        int entryBytes = isPlus ? s_plusBytes : 0;
        while (!rest.IsEmpty)
        {
            lane.Expect(rest.Length >= entryBytes + EntryHead, "ends in the middle of an entry");
            // fuse_dirent: ino 8, off 8, namelen 4, type 4, name, padded to 8.
            Offset = MemoryMarshal.Read<ulong>(rest[(entryBytes + 8)..]);
            int nameLength = MemoryMarshal.Read<int>(rest[(entryBytes + 16)..]);
            lane.Expect(
                nameLength is > 0 and <= 255 && rest.Length >= entryBytes + EntryHead + nameLength, "has a name without end");
            ReadOnlySpan<byte> name = rest.Slice(entryBytes + EntryHead, nameLength);
            if (!name.SequenceEqual("."u8) && !name.SequenceEqual(".."u8))
            {
                lane.Expect(Count < _nodes.Length, "has more names than the directory");
                NodeId node = isPlus ? MemoryMarshal.Read<NodeId>(rest) : NodeId.None;
                lane.Expect(!isPlus || node != NodeId.None, "has a name without a node");
                _nodes[Count++] = new FuseForgetOne { NodeId = node, LookupCount = 1 };
            }

            rest = rest[Math.Min(rest.Length, (entryBytes + EntryHead + nameLength + 7) & ~7)..];
        }

        return isMore;
    }
}

/// <summary>OPENDIR, READDIR or READDIRPLUS until the end of a thousand names, RELEASEDIR.</summary>
/// <param name="isPlus">Whether nodes are looked up as well.</param>
/// <param name="isCold">Whether these are forgotten each time.</param>
internal sealed class Listings(bool isPlus, bool isCold) : Workload
{
    private const int Count = 1000;

    // Directories that nobody lists at the moment, so that a listing never meets nodes that are about to be forgotten.
    private const int Spare = 4;

    private NodeId[] _folders = [];
    private int _next = -1;

    public override int MaxLanesPerQueue => 4;

    public override IEnumerator<Request> Run(Lane lane)
    {
        var listing = new Listing(Count);
        while (true)
        {
            NodeId folder = _folders[(uint)Interlocked.Increment(ref _next) % (uint)_folders.Length];
            yield return lane.Ask(FuseOpcode.OpenDir, folder, default(FuseOpenIn), 16);
            HandleId handle = lane.Reply<FuseOpenOut>().Handle;
            listing.Clear();
            do
            {
                yield return lane.Ask(
                    isPlus ? FuseOpcode.ReadDirPlus : FuseOpcode.ReadDir,
                    folder,
                    new FuseReadIn { Handle = handle, Offset = listing.Offset, Size = Listing.ReplyBytes },
                    Listing.ReplyBytes);
            }
            while (listing.Add(lane, isPlus));
            lane.Expect(listing.Count == Count, $"ends after {listing.Count} names of {Count}");
            yield return lane.Ask(FuseOpcode.ReleaseDir, folder, new FuseReleaseIn { Handle = handle }, 0);
            lane.Empty();
            if (isCold)
            {
                lane.Forget(listing.Nodes);
            }

            lane.Done();
        }
    }

    protected override void Make(int lanes)
    {
        _folders = new NodeId[isCold ? lanes + Spare : 1];
        for (int i = 0; i < _folders.Length; i++)
        {
            MakeFiles(Directory.CreateDirectory(HostPath(Text("d", i))).FullName, "f", Count);
        }
    }

    protected override void LookUp(DaemonSession session, int lanes)
    {
        for (int i = 0; i < _folders.Length; i++)
        {
            _folders[i] = Known(session.Client.Lookup(Folder, Text("d", i)), Text("d", i)).NodeId;
        }

        if (isPlus && !isCold)
        {
            _ = KnownFiles.LookUp(session.Client, _folders[0], "f", Count, number => SizeOf(number));
        }
    }
}
