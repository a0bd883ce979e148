using Causeway.Fuse;
using Causeway.Linux;
using Microsoft.Extensions.Logging;

namespace Causeway.Tests.Fuse;

/// <summary>A session over a recording file system, and the memory of a guest to talk to it through.</summary>
internal sealed class SessionRig
{
    /// <summary>Everything Linux 7.3 offers.</summary>
    public const FuseFeatures AllFeatures = (FuseFeatures)0xfff_ffff_fffb;

    public SessionRig()
    {
        Session = new FuseSession(FileSystem, new FuseSessionOptions { Name = "test" }, Logger);
    }

    public RecordingFileSystem FileSystem { get; } = new();

    public RecordingLogger Logger { get; } = new();

    public FuseRequest Request { get; } = new();

    public FuseSession Session { get; }

    /// <summary>A rig whose session is open, with features that the file system grants besides the session's.</summary>
    public static SessionRig Open(FuseFeatures granted = FuseFeatures.None, uint minor = 46)
    {
        SessionRig rig = new();
        rig.FileSystem.Features = granted;
        byte[] reply = rig.Send(Message.Init(AllFeatures, minor), room: 80);
        Assert.Equal(80, reply.Length);
        rig.FileSystem.Calls.Clear();
        return rig;
    }

    /// <summary>
    /// Sends a request in one piece. Checks what holds for every reply: its used length is in its header, its number is
    /// the request's, an error has no body, and no other byte of the guest's memory changed.
    /// </summary>
    /// <returns>The reply; empty when nothing was written.</returns>
    public byte[] Send(byte[] message, int room) => SendSplit(message, room, [], []);

    /// <summary>Sends a request in pieces.</summary>
    public byte[] SendSplit(byte[] message, int room, int[] requestCuts, int[] replyCuts)
    {
        using PiecedMemory readable = new(message, requestCuts);
        using PiecedMemory writable = new(room, replyCuts);
        writable.Fill(0xee);
        return CheckReply(message, readable, writable, Run(readable.List, writable.List));
    }

    /// <summary>Has the session handle what is in memory; its file system completes at once.</summary>
    /// <returns>The used length.</returns>
    public int Run(IoVectorList readable, IoVectorList writable)
    {
        Request.Reset(readable, writable);
        ValueTask<int> task = Session.DispatchAsync(Request);
        return task.IsCompletedSuccessfully ? task.Result : throw new InvalidOperationException("completes later");
    }

    public static byte[] CheckReply(byte[] message, PiecedMemory readable, PiecedMemory writable, int used)
    {
        Assert.InRange(used, 0, writable.Length);
        Assert.True(used is 0 or >= 16);
        Assert.True(writable.IsGuardIntact());
        Assert.True(readable.IsGuardIntact());
        Assert.Equal(message, readable.Read(message.Length));
        byte[] all = writable.Read(writable.Length);
        byte[] reply = all[..used];
        if (used > 0)
        {
            Assert.Equal(used, BitConverter.ToInt32(reply));
            Assert.InRange(BitConverter.ToInt32(reply, 4), -511, 0);
            Assert.Equal(message.Length >= 40 ? BitConverter.ToUInt64(message, 8) : 0, BitConverter.ToUInt64(reply, 8));
            Assert.True(BitConverter.ToInt32(reply, 4) == 0 || used == 16);
        }

        return reply;
    }
}

/// <summary>Keeps what is logged.</summary>
internal sealed class RecordingLogger : ILogger
{
    public List<(LogLevel Level, int Event, string Text, Exception? Exception)> Entries { get; } = [];

    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    public bool IsEnabled(LogLevel logLevel) => true;

    public void Log<TState>(
        LogLevel logLevel,
        EventId eventId,
        TState state,
        Exception? exception,
        Func<TState, Exception?, string> formatter)
    {
        lock (Entries)
        {
            Entries.Add((logLevel, eventId.Id, formatter(state, exception), exception));
        }
    }

    public int CountOf(int eventId) => Entries.Count(entry => entry.Event == eventId);
}
