using System.Runtime.InteropServices;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Tests.Passthrough;

namespace Causeway.Tests.Server;

/// <summary>A daemon with a window for one share, and a client of it.</summary>
internal sealed class DaxGuest : IDisposable
{
    public const ulong Slot = 2UL << 20;

    private const FuseFeatures Base = FuseFeatures.InitExt | FuseFeatures.MaxPages | FuseFeatures.AtomicOTrunc;

    private readonly Share? _ownShare;
    private readonly PassthroughFileSystem _fileSystem;
    private readonly Loopback _loopback;

    public DaxGuest(PassthroughOptions options, ulong window = 8 * Slot)
        : this(Share.Open(options), window) => _ownShare = Share;

    /// <summary>A further guest of a share.</summary>
    public DaxGuest(Share share, ulong window = 8 * Slot)
    {
        Share = share;
        _fileSystem = new PassthroughFileSystem(share);
        _loopback = new Loopback(_fileSystem, daxWindow: window);
        Driver = _loopback.Connect();
        Client = new FuseClient(Driver);
    }

    public Share Share { get; }

    public VirtioFsDriver Driver { get; }

    public FuseClient Client { get; }

    /// <summary>What a Linux guest that sees a window offers; with dax=always, without the choice by file.</summary>
    public static FuseFeatures Offer(bool always = false) =>
        Base | FuseFeatures.MapAlignment | (always ? FuseFeatures.None : FuseFeatures.HasInodeDax);

    public FuseInitOut Initialize(bool always = false) => Client.Initialize(Offer(always)).Value;

    public NodeEntry Lookup(string name) => Client.Lookup(NodeId.Root, name).Value;

    public Errno Map(
        NodeId node,
        ulong windowOffset,
        ulong fileOffset = 0,
        ulong length = Slot,
        FuseMappingFlags flags = FuseMappingFlags.Read,
        ulong handle = ulong.MaxValue)
    {
        FuseSetupMappingIn arguments = new()
        {
            Handle = new HandleId(handle),
            FileOffset = fileOffset,
            Length = length,
            Flags = flags,
            WindowOffset = windowOffset,
        };
        return Client.Call(
            FuseOpcode.SetupMapping, node, MemoryMarshal.AsBytes(new ReadOnlySpan<FuseSetupMappingIn>(in arguments)), 0, out _);
    }

    public Errno Unmap(params (ulong Offset, ulong Length)[] ranges) => Unmap((uint)ranges.Length, ranges);

    public Errno Unmap(uint count, params (ulong Offset, ulong Length)[] ranges)
    {
        byte[] arguments = new byte[4 + (16 * ranges.Length)];
        MemoryMarshal.Write(arguments, count);
        for (int i = 0; i < ranges.Length; i++)
        {
            MemoryMarshal.Write(arguments.AsSpan(4 + (16 * i)), ranges[i].Offset);
            MemoryMarshal.Write(arguments.AsSpan(12 + (16 * i)), ranges[i].Length);
        }

        return Client.Call(FuseOpcode.RemoveMapping, NodeId.Root, arguments, 0, out _);
    }

    public Errno Resize(NodeId node, ulong size) =>
        Client.SetAttr(node, new FuseSetAttrIn { Valid = SetAttrValid.Size, Size = size }).Error;

    public void Dispose()
    {
        Driver.Dispose();
        _loopback.Dispose();
        _fileSystem.Dispose();
        _ownShare?.Dispose();
    }

    /// <summary>Makes a file on the host with bytes that tell where they are.</summary>
    public static void WriteFile(string path, int size) => File.WriteAllBytes(path, Bytes(size));

    public static byte[] Bytes(int size)
    {
        byte[] bytes = new byte[size];
        for (int i = 0; i < size; i++)
        {
            bytes[i] = ByteAt(i);
        }

        return bytes;
    }

    public static byte ByteAt(long offset) => (byte)(1 + (((offset * 31) + (offset >> 12)) % 251));
}
