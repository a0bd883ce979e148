// Every wait here has a deadline of its own, and tasks that use a device end before it does.
#pragma warning disable xUnit1051, xUnit1031, CA2012, CA2025

using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Passthrough;
using Causeway.Tests.Daemon;
using Causeway.Tests.Server;

namespace Causeway.Tests.Driver;

/// <summary>A directory, our own server for it, and a client.</summary>
internal sealed class ClientRig : IAsyncDisposable
{
    private readonly TemporaryDirectory _share = new();
    private readonly Share _opened;
    private readonly PassthroughFileSystem _fileSystem;
    private readonly Loopback _loopback;
    private readonly Dictionary<FuseOpcode, long> _counted = [];
    private VirtioFsClient? _client;

    public ClientRig(VersionTableLayout? versions = null)
    {
        _opened = Share.Open(new PassthroughOptions
        {
            SharedDirectory = _share.Path, Xattr = true, VersionTable = versions,
        });
        _fileSystem = new PassthroughFileSystem(_opened);
        _loopback = new Loopback(_fileSystem);
    }

    public string SocketPath => _loopback.SocketPath;

    public VirtioFsClient Client => _client!;

    public string Host(string path) => _share.File(path);

    public async Task<VirtioFsClient> ConnectAsync(VirtioFsClientOptions? options = null)
    {
        _client = await VirtioFsClient.ConnectAsync(SocketPath, options);
        Messages();
        return _client;
    }

    /// <summary>The requests that reached the device since the last time, without FORGETs, which come when they come.</summary>
    public string Messages()
    {
        var seen = new List<string>();
        foreach (FuseOpcode opcode in Enum.GetValues<FuseOpcode>())
        {
            long count = _loopback.Requests(opcode);
            long fresh = count - _counted.GetValueOrDefault(opcode);
            _counted[opcode] = count;
            if (fresh > 0 && opcode is not (FuseOpcode.Forget or FuseOpcode.BatchForget))
            {
                seen.Add(fresh == 1 ? $"{opcode}" : $"{opcode}*{fresh}");
            }
        }

        return string.Join(' ', seen);
    }

    public long Requests(FuseOpcode opcode) => _loopback.Requests(opcode);

    public async ValueTask DisposeAsync()
    {
        if (_client is not null)
        {
            await _client.DisposeAsync();
        }

        _loopback.Dispose();
        _fileSystem.Dispose();
        _opened.Dispose();
        _share.Dispose();
    }
}
