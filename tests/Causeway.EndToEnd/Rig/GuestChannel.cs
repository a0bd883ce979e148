using System.Net.Sockets;
using System.Text;

namespace Causeway.EndToEnd;

/// <summary>Where in the guest a command runs: in the tools disk's Debian, or in the initramfs around it.</summary>
public enum GuestPlace
{
    Tools,
    Initramfs,
}

/// <summary>What a command in the guest left: its exit status and exactly the bytes it wrote.</summary>
public sealed record GuestResult(int Status, byte[] Output, byte[] Error)
{
    /// <summary>The status that coreutils' timeout and busybox's give to what they had to kill.</summary>
    public const int KilledStatus = 137;

    public string OutputText => Encoding.UTF8.GetString(Output);

    public string ErrorText => Encoding.UTF8.GetString(Error);
}

/// <summary>The guest has crashed, hung or restarted: no test on it can go on.</summary>
public sealed class GuestLostException(string message) : Exception(message);

/// <summary>The host's end of the conversation with eng/guest/agent, which describes the lines.</summary>
internal sealed class GuestChannel : IDisposable
{
    private readonly Socket _socket;
    private readonly StreamReader _reader;
    private int _lastId;

    private GuestChannel(Socket socket)
    {
        _socket = socket;
        _reader = new StreamReader(new NetworkStream(socket, ownsSocket: false), Encoding.ASCII);
    }

    /// <summary>Connects to QEMU's socket, which appears while it starts.</summary>
    public static async Task<GuestChannel> ConnectAsync(string path, Func<bool> guestHasEnded, TimeSpan time)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await Deadline.UntilAsync($"QEMU listens at {path}", time, async () =>
        {
            if (guestHasEnded())
            {
                throw new GuestLostException("QEMU has ended while starting");
            }

            try
            {
                await socket.ConnectAsync(new UnixDomainSocketEndPoint(path));
                return true;
            }
            catch (SocketException)
            {
                return false;
            }
        });
        return new GuestChannel(socket);
    }

    /// <summary>Waits for the line that a guest's agent starts with.</summary>
    public async Task WaitUntilReadyAsync(CancellationToken cancellationToken)
    {
        string line = await ReadLineAsync("the guest's agent to be ready", cancellationToken);
        if (!line.StartsWith("ready ", StringComparison.Ordinal))
        {
            throw new GuestLostException($"the guest says '{line}' instead of 'ready'");
        }
    }

    public async Task SendAsync(GuestPlace place, string command, TimeSpan time)
    {
        string placeWord = place.ToString().ToLowerInvariant();
        string encoded = Convert.ToBase64String(Encoding.UTF8.GetBytes(command));
        await _socket.SendAsync(Encoding.ASCII.GetBytes($"{++_lastId} {(int)time.TotalSeconds} {placeWord} {encoded}\n"));
    }

    public async Task<GuestResult> RunAsync(GuestPlace place, string command, TimeSpan time)
    {
        await SendAsync(place, command, time);

        // The guest itself ends what takes too long. That it does not answer at all after that has another reason.
        using var patience = new CancellationTokenSource(time + TimeSpan.FromSeconds(30));
        string what = $"the end of a command{Environment.NewLine}{command}";
        string[] answer = (await ReadLineAsync(what, patience.Token)).Split(' ');
        if (answer is not ["done", string id, string status] || id != _lastId.ToString())
        {
            throw new GuestLostException($"the guest says '{string.Join(' ', answer)}' while running: {command}");
        }

        byte[] output = await ReadBlockAsync(what, patience.Token);
        byte[] error = await ReadBlockAsync(what, patience.Token);
        return new GuestResult(int.Parse(status), output, error);
    }

    public void Dispose()
    {
        _reader.Dispose();
        _socket.Dispose();
    }

    private async Task<byte[]> ReadBlockAsync(string what, CancellationToken cancellationToken)
    {
        var encoded = new StringBuilder();
        while (await ReadLineAsync(what, cancellationToken) is var line && line != ".")
        {
            encoded.Append(line);
        }

        return Convert.FromBase64String(encoded.ToString());
    }

    private async Task<string> ReadLineAsync(string what, CancellationToken cancellationToken)
    {
        try
        {
            return await _reader.ReadLineAsync(cancellationToken)
                ?? throw new GuestLostException($"QEMU has ended while the test waited for {what}");
        }
        catch (OperationCanceledException)
        {
            throw new GuestLostException($"the guest hangs: too long without {what}");
        }
        catch (IOException exception)
        {
            throw new GuestLostException($"the guest is gone ({exception.Message}) while the test waited for {what}");
        }
    }
}
