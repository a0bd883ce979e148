using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Passthrough;
using Causeway.Tests.Daemon;
using Causeway.Tests.Server;
using CacheMode = Causeway.Driver.CacheMode;

namespace Causeway.Tests.Coherency;

/// <summary>A directory with one version table, and guests of it: each a server with a client of its own.</summary>
internal sealed class CoherentRig : IAsyncDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly List<Guest> _guests = [];

    public CoherentRig(VersionTableLayout? layout = null)
    {
        Share = Share.Open(new PassthroughOptions
        {
            SharedDirectory = _directory.Path, Xattr = true, VersionTable = layout ?? VersionTableLayout.Default,
        });
    }

    public Share Share { get; }

    public VersionTable Table => Share.Versions!.Table;

    public string Host(string path) => _directory.File(path);

    /// <summary>One more guest.</summary>
    /// <param name="mode">What its client keeps.</param>
    /// <param name="options">How else it uses the share.</param>
    /// <param name="daxWindow">How large its window is.</param>
    public async Task<Guest> AddAsync(
        CacheMode mode = CacheMode.Coherent, VirtioFsClientOptions? options = null, ulong daxWindow = 0)
    {
        var guest = new Guest(Share);
        _guests.Add(guest);
        await guest.ConnectAsync((options ?? new VirtioFsClientOptions()) with { Cache = mode }, daxWindow);
        return guest;
    }

    public async ValueTask DisposeAsync()
    {
        foreach (Guest guest in _guests)
        {
            await guest.DisposeAsync();
        }

        Share.Dispose();
        _directory.Dispose();
    }

    internal sealed class Guest(Share share) : IAsyncDisposable
    {
        private readonly PassthroughFileSystem _fileSystem = new(share);
        private readonly Dictionary<FuseOpcode, long> _counted = [];
        private Loopback? _loopback;
        private VirtioFsClient? _client;

        public VirtioFsClient Client => _client!;

        public async Task ConnectAsync(VirtioFsClientOptions options, ulong daxWindow)
        {
            _loopback = new Loopback(_fileSystem, daxWindow: daxWindow);
            _client = await VirtioFsClient.ConnectAsync(_loopback.SocketPath, options);
            Messages();
        }

        /// <summary>The requests that reached the device since the last time, without FORGETs, which come when they come.</summary>
        public string Messages()
        {
            var seen = new List<string>();
            foreach (FuseOpcode opcode in Enum.GetValues<FuseOpcode>())
            {
                long count = _loopback!.Requests(opcode);
                long fresh = count - _counted.GetValueOrDefault(opcode);
                _counted[opcode] = count;
                if (fresh > 0 && opcode is not (FuseOpcode.Forget or FuseOpcode.BatchForget))
                {
                    seen.Add(fresh == 1 ? $"{opcode}" : $"{opcode}*{fresh}");
                }
            }

            return string.Join(' ', seen);
        }

        /// <summary>The device goes away, and everything in it.</summary>
        public void EndServer()
        {
            _loopback?.Dispose();
            _loopback = null;
        }

        public async ValueTask DisposeAsync()
        {
            if (_client is not null)
            {
                await _client.DisposeAsync();
            }

            EndServer();
            _fileSystem.Dispose();
        }
    }
}
