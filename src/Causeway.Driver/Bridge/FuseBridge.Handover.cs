using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.VhostUser;
using Causeway.VhostUser.Messages;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Driver.Bridge;

/// <content>Mounts that are handed over: the daemon takes requests from the kernel by itself.</content>
public sealed partial class FuseBridge
{
    // How long programs that go on asking get EIO from a mount that is about to end (arbitrary).
    private const int RefusalMilliseconds = 500;

    // Of the mount, when the daemon serves it: one must stay open here, so that what a daemon that dies has taken is not lost.
    private readonly List<SafeFileHandle> _handedOver = [];

    /// <summary>Whether the daemon takes requests from the kernel by itself. Nothing of that is counted here.</summary>
    public bool IsHandedOver => _handedOver.Count > 0;

    // At the daemon two are worth it with a single program, too: a third to two thirds more than one, and no less with four
    // (benchmarks/bridge).
    private int HandedOverThreads => Math.Min(
        _options.Threads ?? Math.Max(DeviceThreads, Math.Min(Environment.ProcessorCount, 2)), FuseDeviceDescription.Most);

    // The rest takes somebody between the kernel and the daemon.
    private bool CanHandOver()
    {
        string? obstacle = _options.UsesIoUring == true ? "io_uring is wanted"
            : _options.Loss == BridgeLoss.Wait ? "a mount with 'lost=wait' is without"
            : _options.UsesVersions ? "the version table needs the bridge"
            : _session.Driver.HasNotifications ? "the daemon reports changes on the host; '-o nonotify' is without"
            : (_session.Driver.Frontend.NegotiatedProtocolFeatures & VhostUserProtocolFeatures.FuseDevices) == 0
                ? "the daemon does not offer it"
            : null;
        if (obstacle is not null && _options.HandsOver == true)
        {
            _options.Report?.Invoke($"the mount is not handed over to the daemon: {obstacle}");
        }

        return obstacle is null && _options.HandsOver != false;
    }

    private void HandOver(SafeFileHandle device)
    {
        _handedOver.Add(device);
        var description = new FuseDeviceDescription(
            (uint)_options.ReplyCaching, _options.Polls ? FuseDeviceFlags.None : FuseDeviceFlags.NeverPolls);
        try
        {
            for (int i = 0; i < HandedOverThreads; i++)
            {
                SafeFileHandle looking = i == 0 ? device : Clone(device, blocks: false);
                SafeFileHandle waiting = Clone(device, blocks: true);
                _handedOver.Add(waiting);
                if (i > 0)
                {
                    _handedOver.Add(looking);
                }

                _session.Driver.Frontend.AddFuseDevice(looking, waiting, _wake, description);
            }
        }
        catch (VhostUserException exception)
        {
            throw new IOException(
                $"the daemon at '{_options.SocketPath}' does not take the mount: {exception.Message}; mount with '-o nohandover'",
                exception);
        }
    }

    // The daemon has said so, or something else has woken this thread.
    private bool IsConnectionOver() =>
        (Poll.Now(Number(_handedOver[0]), PollEvents.Readable) & (PollEvents.Error | PollEvents.HangUp)) != 0;

    // The daemon is gone with requests that it had taken. The kernel gives them out once more (Linux 6.9), for nobody else to answer.
    private unsafe void FailWhatWasTaken()
    {
        Tell(FuseNotifyCode.Resend, default);
        long end = Environment.TickCount64 + RefusalMilliseconds;
        byte* buffer = (byte*)NativeMemory.Alloc(DeviceMessage.RequestBytes);
        while (DeviceChannel.TryRefuse(Number(_handedOver[0]), buffer, DeviceMessage.RequestBytes) && Environment.TickCount64 < end)
        {
            // They come first, and then what has come since.
        }

        NativeMemory.Free(buffer);
    }
}
