using Causeway.Fuse;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Driver.Bridge;

/// <summary>One session of a mount with a device: from INIT until the daemon goes away.</summary>
internal sealed class BridgeSession : IDisposable
{
    private readonly DeviceConnection _connection;

    /// <summary>Makes a session.</summary>
    /// <param name="driver">The device; owned from here on.</param>
    /// <param name="number">The number of the session, from 0.</param>
    /// <param name="options">How the share is mounted.</param>
    public BridgeSession(VirtioFsDriver driver, int number, BridgeOptions options)
    {
        Driver = driver;
        _connection = driver.Connection;
        Number = number;
        Tag = new SessionTag(number);
        IsTagged = options.Loss == BridgeLoss.Wait;
        Editor = new ReplyEditor(options.ReplyCaching, IsTagged ? Tag : null);
        HighPriority = new HighPriorityChannel(driver.HighPriorityQueue, () => IsLost);
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
    public bool IsLost => _connection.Loss is not null;

    /// <summary>Sleeps until the device is lost, or an event is signalled, which the caller sets back.</summary>
    /// <param name="wake">The event.</param>
    public void Watch(SafeFileHandle wake) => _connection.Watch(wake, Poll.Forever);

    /// <summary>Has the bridge, which has this session by now, told when the device is lost; at once if it is.</summary>
    /// <param name="bridge">The bridge.</param>
    public void TellLossTo(FuseBridge bridge) => _connection.WhenLost(loss => bridge.HasLost(this, loss.Message));

    /// <summary>Says that the device cannot be used any more.</summary>
    /// <param name="why">What happened.</param>
    public void Lose(IOException why) => _connection.Lose(
        why as VirtioFsDeviceException ?? new VirtioFsDeviceException(DeviceFailure.Unknown, why.Message, why));

    /// <summary>Says that it is not needed any more.</summary>
    public void Close() => _connection.Lose(DeviceConnection.Closed());

    /// <inheritdoc/>
    public void Dispose() => Driver.Dispose();
}
