using System.Text;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Cli.Bench.Workloads;

/// <summary>BMAP, which nobody implements: what the transport costs.</summary>
internal sealed class Nothing : Workload
{
    public override IEnumerator<Request> Run(Lane lane)
    {
        while (true)
        {
            yield return lane.Ask(FuseOpcode.Bmap, NodeId.Root, new BmapIn(0, 4096), 8);
            lane.Error(Errno.ENOSYS);
            lane.Done();
        }
    }

    // struct fuse_bmap_in
    private readonly record struct BmapIn(ulong Block, ulong BlockSize);
}

/// <summary>Workloads over a thousand files that the daemon knows.</summary>
internal abstract class OverKnownFiles : Workload
{
    private const int Count = 1000;

    private byte[][] _names = [];

    protected KnownFiles Files { get; private set; } = null!;

    protected override void Make(int lanes)
    {
        MakeFiles(HostFolder, "f", Count);
        _names = [.. Enumerable.Range(0, Count).Select(number => Name("f", number))];
    }

    protected override void LookUp(DaemonSession session, int lanes) =>
        Files = KnownFiles.LookUp(session.Client, Folder, "f", Count, number => SizeOf(number));

    protected ReadOnlySpan<byte> NameOf(int number) => _names[number];

    // Lanes begin at different places, and every file comes as often.
    protected static int First(Lane lane) => lane.Number * 37 % Count;

    protected static int Next(int number) => (number + 1) % Count;
}

/// <summary>GETATTR.</summary>
internal sealed class GetAttributes : OverKnownFiles
{
    public override IEnumerator<Request> Run(Lane lane)
    {
        for (int i = First(lane); ; i = Next(i))
        {
            yield return lane.Ask(FuseOpcode.GetAttr, Files.Node(i), default(FuseGetAttrIn), 104);
            Files.Check(lane, i, lane.Reply<FuseAttrOut>().Attributes);
            lane.Done();
        }
    }
}

/// <summary>LOOKUP of names that the daemon knows.</summary>
internal sealed class LookUpKnown : OverKnownFiles
{
    public override IEnumerator<Request> Run(Lane lane)
    {
        for (int i = First(lane); ; i = Next(i))
        {
            yield return lane.Ask(FuseOpcode.Lookup, Folder, 128, NameOf(i));
            Files.Check(lane, i, lane.Reply<NodeEntry>());
            lane.Done();
        }
    }
}

/// <summary>LOOKUP of names that the daemon does not know, and FORGET.</summary>
internal sealed class LookUpNew : Workload
{
    // Many enough that each is forgotten when it comes again.
    private const int Count = 2048;

    private readonly byte[][] _names = [.. Enumerable.Range(0, Count).Select(number => Name("f", number))];
    private int _next = -1;

    public override IEnumerator<Request> Run(Lane lane)
    {
        while (true)
        {
            int i = Interlocked.Increment(ref _next) & (Count - 1);
            yield return lane.Ask(FuseOpcode.Lookup, Folder, 128, _names[i]);
            NodeEntry entry = lane.Reply<NodeEntry>();
            lane.Expect(entry.NodeId != NodeId.None, "names no node");
            lane.Expect(entry.Attributes.Size == (ulong)SizeOf(i), "has the size of another file");
            lane.Forget(entry.NodeId);
            lane.Done();
        }
    }

    protected override void Make(int lanes) => MakeFiles(HostFolder, "f", Count);
}

/// <summary>LOOKUP of names that are not there.</summary>
internal sealed class LookUpMissing : Workload
{
    private readonly byte[] _name = "missing\0"u8.ToArray();

    public override IEnumerator<Request> Run(Lane lane)
    {
        while (true)
        {
            yield return lane.Ask(FuseOpcode.Lookup, Folder, 128, _name);
            lane.ExpectMissing();
            lane.Done();
        }
    }
}

/// <summary>OPEN and RELEASE.</summary>
internal sealed class OpenRelease : OverKnownFiles
{
    public override IEnumerator<Request> Run(Lane lane)
    {
        for (int i = First(lane); ; i = Next(i))
        {
            yield return lane.Ask(FuseOpcode.Open, Files.Node(i), default(FuseOpenIn), 16);
            HandleId handle = lane.Reply<FuseOpenOut>().Handle;
            yield return lane.Ask(FuseOpcode.Release, Files.Node(i), new FuseReleaseIn { Handle = handle }, 0);
            lane.Empty();
            lane.Done();
        }
    }
}

/// <summary>SETATTR of the permissions.</summary>
internal sealed class SetAttributes : OverKnownFiles
{
    private const uint Type = 0x8000;

    public override IEnumerator<Request> Run(Lane lane)
    {
        for (int i = First(lane); ; i = Next(i))
        {
            uint mode = Type | (i % 2 == 0 ? 0x1A4u : 0x180u);
            var arguments = new FuseSetAttrIn { Valid = SetAttrValid.Mode, Mode = mode };
            yield return lane.Ask(FuseOpcode.SetAttr, Files.Node(i), arguments, 104);
            FuseAttributes attributes = lane.Reply<FuseAttrOut>().Attributes;
            lane.Expect(attributes.Mode == mode && attributes.Size == (ulong)SizeOf(i), "has other permissions, or is of another file");
            lane.Done();
        }
    }
}

/// <summary>SETXATTR and GETXATTR.</summary>
internal sealed class ExtendedAttributes : OverKnownFiles
{
    private const int ValueBytes = 64;

    private readonly byte[] _name = "user.bench\0"u8.ToArray();
    private int _argumentBytes;

    public override IEnumerator<Request> Run(Lane lane)
    {
        byte[] set = new byte[_argumentBytes];
        BitConverter.TryWriteBytes(set, ValueBytes);
        byte[] nameAndValue = [.. _name, .. Pattern.Page(lane.Number)[..ValueBytes]];
        for (int i = First(lane); ; i = Next(i))
        {
            // One file for each lane: another one's value would be as right.
            NodeId node = Files.Node(lane.Number % Files.Count);
            yield return lane.Ask(FuseOpcode.SetXattr, node, 0, set, nameAndValue);
            lane.Empty();
            yield return lane.Ask(
                FuseOpcode.GetXattr, node, new FuseGetXattrIn { Size = ValueBytes }, ValueBytes, _name);
            lane.Expect(lane.Content().SequenceEqual(Pattern.Page(lane.Number)[..ValueBytes]), "is another value");
            lane.Done();
        }
    }

    protected override void LookUp(DaemonSession session, int lanes)
    {
        base.LookUp(session, lanes);
        // fuse_setxattr_in has two fields, and two more where FUSE_SETXATTR_EXT was agreed on.
        _argumentBytes = session.Client.Features.HasFlag(FuseFeatures.SetXattrExt) ? 16 : 8;
        byte[] arguments = new byte[_argumentBytes];
        BitConverter.TryWriteBytes(arguments, 1);
        Errno error = session.Client.Call(
            FuseOpcode.SetXattr, Files.Node(0), [.. arguments, .. _name, .. "x"u8], 0, out _);
        if (error is Errno.ENOSYS or Errno.EOPNOTSUPP)
        {
            throw new NotSupportedByDaemonException(
                $"SETXATTR is answered by {error}: start the daemon with extended attributes, on a file system that has them");
        }
    }
}

/// <summary>SYMLINK, READLINK, UNLINK and FORGET.</summary>
internal sealed class SymbolicLinks : Workload
{
    private readonly byte[] _target = Encoding.UTF8.GetBytes("some/where/else\0");

    public override IEnumerator<Request> Run(Lane lane)
    {
        byte[] name = Name("link", lane.Number);
        while (true)
        {
            yield return lane.Ask(FuseOpcode.Symlink, Folder, 128, name, _target);
            NodeEntry entry = lane.Reply<NodeEntry>();
            lane.Expect((entry.Attributes.Mode & 0xF000) == 0xA000, "is not about a symbolic link");
            yield return lane.Ask(FuseOpcode.ReadLink, entry.NodeId, 4096);
            lane.Expect(lane.Content().SequenceEqual(_target.AsSpan()[..^1]), "is another target");
            yield return lane.Ask(FuseOpcode.Unlink, Folder, 0, name);
            lane.Empty();
            lane.Forget(entry.NodeId);
            lane.Done();
        }
    }
}

/// <summary>RENAME, there and back.</summary>
internal sealed class Renames : Workload
{
    public override IEnumerator<Request> Run(Lane lane)
    {
        byte[] here = Name("here", lane.Number);
        byte[] there = Name("there", lane.Number);
        while (true)
        {
            yield return lane.Ask(FuseOpcode.Rename, Folder, new FuseRenameIn { NewParent = Folder }, 0, here, there);
            lane.Empty();
            lane.Done();
            (here, there) = (there, here);
        }
    }

    protected override void Make(int lanes) => MakeFiles(HostFolder, "here", lanes);

    protected override void LookUp(DaemonSession session, int lanes)
    {
        for (int i = 0; i < lanes; i++)
        {
            _ = Known(session.Client.Lookup(Folder, Text("here", i)), Text("here", i));
        }
    }
}
