using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Passthrough;
using Causeway.Tests.Passthrough;
using Causeway.Tests.Server;
using CacheMode = Causeway.Driver.CacheMode;

namespace Causeway.Tests.Driver;

/// <summary>One share, and clients of it that each have a session and a window of their own.</summary>
internal sealed class DaxClientRig : IAsyncDisposable
{
    public const int Slot = 2 << 20;

    private readonly HostDirectory _host = new();
    private readonly Share _share;
    private readonly List<(PassthroughFileSystem FileSystem, Loopback Loopback)> _devices = [];
    private readonly List<VirtioFsClient> _clients = [];

    public DaxClientRig() => _share = Share.Open(_host.Options);

    public Share Share => _share;

    public string Host(string name) => _host[name];

    /// <summary>A further client, with a window of that many ranges of 2 MiB; without one when zero.</summary>
    public async Task<VirtioFsClient> ConnectAsync(
        DaxMode mode = DaxMode.Inode, int slots = 8, CacheMode cache = CacheMode.Auto, WriteMode writes = WriteMode.Through)
    {
        var fileSystem = new PassthroughFileSystem(_share);
        var loopback = new Loopback(fileSystem, daxWindow: (ulong)slots * Slot);
        _devices.Add((fileSystem, loopback));
        VirtioFsClient client = await VirtioFsClient.ConnectAsync(
            loopback.SocketPath, new VirtioFsClientOptions { Dax = mode, Cache = cache, Writes = writes });
        _clients.Add(client);
        return client;
    }

    /// <summary>A further client that has a new file "f" open for reading.</summary>
    public async Task<(VirtioFsClient Client, VirtioFsFile File)> OpenAsync(int size, DaxMode mode, int slots)
    {
        DaxGuest.WriteFile(Host("f"), size);
        VirtioFsClient client = await ConnectAsync(mode, slots);
        return (client, await client.OpenFileAsync("f"));
    }

    /// <summary>How many requests of a kind all devices have seen; of any kind when none is named.</summary>
    public long Requests(params FuseOpcode[] opcodes)
    {
        long count = 0;
        foreach (FuseOpcode opcode in opcodes.Length == 0 ? Enum.GetValues<FuseOpcode>() : opcodes)
        {
            count += _devices.Sum(device => device.Loopback.Requests(opcode));
        }

        return count;
    }

    /// <summary>The first device goes, as if the daemon were killed.</summary>
    public void EndFirstDevice()
    {
        _devices[0].Loopback.Dispose();
        _devices[0].FileSystem.Dispose();
        _devices.RemoveAt(0);
    }

    public void WriteHost(string name, long offset, ReadOnlySpan<byte> bytes)
    {
        using FileStream file = new(Host(name), System.IO.FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
        file.Position = offset;
        file.Write(bytes);
    }

    public void ResizeHost(string name, long length)
    {
        using FileStream file = new(Host(name), System.IO.FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
        file.SetLength(length);
    }

    public byte[] ReadHost(string name, long offset, int count)
    {
        using FileStream file = new(Host(name), System.IO.FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        file.Position = offset;
        byte[] bytes = new byte[count];
        file.ReadExactly(bytes);
        return bytes;
    }

    public async ValueTask DisposeAsync()
    {
        foreach (VirtioFsClient client in _clients)
        {
            await client.DisposeAsync();
        }

        foreach ((PassthroughFileSystem fileSystem, Loopback loopback) in _devices)
        {
            loopback.Dispose();
            fileSystem.Dispose();
        }

        // Whatever was mapped: nothing of it is left at the devices.
        Assert.True(_share.MappedFiles.IsEmpty);
        _share.Dispose();
        _host.Dispose();
    }
}
