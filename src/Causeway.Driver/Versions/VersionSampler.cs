using Causeway.Fuse;

namespace Causeway.Driver;

/// <summary>Looks at the heartbeat of a version table for as long as a session lasts, on a thread of its own.</summary>
internal sealed class VersionSampler : IDisposable
{
    private readonly VersionTableReader _reader;
    private readonly ManualResetEventSlim _isStopped = new();
    private readonly Thread _thread;
    private int _isDisposed;

    internal VersionSampler(VersionTableReader reader)
    {
        _reader = reader;
        _thread = new Thread(Run) { IsBackground = true, Name = "vfs-versions" };
        _thread.Start();
    }

    /// <summary>
    /// Twice the heartbeat's: each sample should find that it has moved. Of the second that words are believed for, two of these are
    /// lost.
    /// </summary>
    internal static TimeSpan Interval => TimeSpan.FromMilliseconds(100);

    /// <inheritdoc/>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _isDisposed, 1) != 0)
        {
            return;
        }

        _isStopped.Set();
        _thread.Join();
        _isStopped.Dispose();
    }

    private void Run()
    {
        // The first two samples close together: nothing is believed before the heartbeat has been seen to move.
        _reader.Sample();
        TimeSpan wait = VersionTableLayout.HeartbeatInterval;
        while (!_isStopped.Wait(wait))
        {
            _reader.Sample();
            wait = VersionSampler.Interval;
        }
    }
}
