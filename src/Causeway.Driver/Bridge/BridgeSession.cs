namespace Causeway.Driver.Bridge;

/// <summary>One session of a mount with a device: from INIT until the daemon goes away.</summary>
internal sealed class BridgeSession : IDisposable
{
    private volatile bool _isLost;

    /// <summary>Makes a session.</summary>
    /// <param name="driver">The device; owned from here on.</param>
    /// <param name="number">The number of the session, from 0.</param>
    /// <param name="options">How the share is mounted.</param>
    public BridgeSession(VirtioFsDriver driver, int number, BridgeOptions options)
    {
        Driver = driver;
        Number = number;
        Tag = new SessionTag(number);
        IsTagged = options.Loss == BridgeLoss.Wait;
        Editor = new ReplyEditor(options.Cache, IsTagged ? Tag : null);
        HighPriority = new HighPriorityChannel(driver.HighPriorityQueue, () => _isLost);
    }

    /// <summary>The device.</summary>
    public VirtioFsDriver Driver { get; }

    /// <summary>The number of the session, from 0.</summary>
    public int Number { get; }

    /// <summary>Whether numbers carry the mark of the session.</summary>
    public bool IsTagged { get; }

    /// <summary>The mark.</summary>
    public SessionTag Tag { get; }

    /// <summary>How replies are changed.</summary>
    public ReplyEditor Editor { get; }

    /// <summary>What is never answered.</summary>
    public HighPriorityChannel HighPriority { get; }

    /// <summary>Whether the device is gone.</summary>
    public bool IsLost => _isLost;

    /// <summary>Says that it is gone, or not needed any more.</summary>
    public void Lose() => _isLost = true;

    /// <inheritdoc/>
    public void Dispose() => Driver.Dispose();
}
