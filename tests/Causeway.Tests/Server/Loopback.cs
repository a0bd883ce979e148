using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Server;
using Microsoft.Extensions.Logging;

namespace Causeway.Tests.Server;

/// <summary>A server with a file system, and the means to connect to it over a real socket.</summary>
internal sealed class Loopback : IDisposable
{
    private readonly VirtioFsServer _server;
    private readonly Thread _thread;
    private Exception? _failure;

    public Loopback(
        FuseFileSystem fileSystem, string? tag = null, ILoggerFactory? loggers = null, ulong daxWindow = 0,
        long maxInFlight = VirtioFsServerOptions.DefaultInFlightBytes)
    {
        SocketPath = Path.Combine(Path.GetTempPath(), $"causeway-{Guid.NewGuid():N}.sock");
        var options = new VirtioFsServerOptions
        {
            SocketPath = SocketPath,
            IsPersistent = true,
            Tag = tag,
            DaxWindowSize = daxWindow,
            MaxInFlightBytes = maxInFlight,
        };
        _server = new VirtioFsServer(fileSystem, options, loggers);
        _thread = new Thread(Run) { IsBackground = true, Name = "loopback" };
        _thread.Start();
    }

    public string SocketPath { get; }

    /// <summary>How many requests of a kind the server has seen.</summary>
    public long Requests(FuseOpcode opcode) => _server.CountRequests(opcode);

    public VirtioFsDriver Connect(VirtioFsDriverOptions? options = null) =>
        VirtioFsDriver.Connect(SocketPath, options);

    public void Dispose()
    {
        _server.Stop();
        _thread.Join();
        _server.Dispose();
        Assert.Null(_failure);
    }

    private void Run()
    {
        try
        {
            _server.Run();
        }
        catch (Exception exception)
        {
            _failure = exception;
        }
    }
}
