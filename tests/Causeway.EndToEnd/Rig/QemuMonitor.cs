using System.Net.Sockets;
using System.Text;
using System.Text.Json;

namespace Causeway.EndToEnd;

/// <summary>QEMU's monitor (QMP), for what a guest cannot be asked to do.</summary>
internal sealed class QemuMonitor : IDisposable
{
    private static readonly TimeSpan _answerTime = TimeSpan.FromSeconds(60);

    private readonly Socket _socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private readonly StreamReader _reader;

    public QemuMonitor(string path)
    {
        _socket.Connect(new UnixDomainSocketEndPoint(path));
        _reader = new StreamReader(new NetworkStream(_socket, ownsSocket: false), Encoding.UTF8);
    }

    /// <summary>Runs a command without arguments and waits until QEMU has done it.</summary>
    public async Task RunAsync(string command)
    {
        await _socket.SendAsync(Encoding.UTF8.GetBytes($"{{\"execute\":\"{command}\"}}\n"));
        using var patience = new CancellationTokenSource(_answerTime);
        while (true)
        {
            string line = await _reader.ReadLineAsync(patience.Token) ?? throw new GuestLostException($"QEMU ended in {command}");
            using JsonDocument answer = JsonDocument.Parse(line);
            if (answer.RootElement.TryGetProperty("return", out _))
            {
                return;
            }

            Assert.False(answer.RootElement.TryGetProperty("error", out _), line);
        }
    }

    public void Dispose()
    {
        _reader.Dispose();
        _socket.Dispose();
    }
}
