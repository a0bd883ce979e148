using System.Buffers.Binary;
using System.Text;
using Causeway.Linux;
using Causeway.VhostUser;
using Causeway.VhostUser.Frontend;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;

namespace Causeway.Driver;

/// <content>From connected to running.</content>
public sealed partial class VirtioFsTransport
{
    // struct virtio_fs_config (virtio 1.4, 5.11.4): the tag, then the number of request queues, little-endian.
    private const int TagBytes = 36;
    private const int ConfigBytes = TagBytes + sizeof(uint);

    // FORGET and INTERRUPT; more of them are collected meanwhile (arbitrary).
    private const int HighPriorityCalls = 16;

    private const VirtioFeatures RingFeatures = VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex;

    private VirtioFsTransport(VhostUserFrontend frontend, VirtioFsTransportOptions options)
    {
        _frontend = frontend;
        _options = options;
        bool hasNotifications = Negotiate(frontend, options);
        int queues = CountQueues(hasNotifications);
        var ring = new DriverQueueOptions(
            options.QueueSize,
            (QueueFeatures)(frontend.NegotiatedFeatures & RingFeatures),
            IndirectTableEntries: TransportQueue.MaxPieces);

        ulong ringBytes = GuestArena.Footprint(SplitDriverQueue.GetRequiredBytes(ring));
        const ulong CallBytes = 2 * FuseCall.ControlBytes;
        _arena = new GuestArena(
            ((ulong)(1 + queues) * ringBytes)
            + (hasNotifications ? ringBytes + NotificationQueue.BufferFootprint : 0)
            + ((ulong)(HighPriorityCalls + options.Calls) * CallBytes)
            + ((ulong)options.PayloadBuffers * (ulong)options.PayloadBytes)
            + ((ulong)options.CacheBuffers * (ulong)options.CacheBufferBytes),
            options.HugePages);

        _pools = 4;
        _calls = new TransportPool<FuseCall>(PoolEmptied);
        _highPriorityCalls = new TransportPool<FuseCall>(PoolEmptied);
        _buffers = new TransportPool<GuestBuffer>(PoolEmptied);
        _cacheBuffers = new TransportPool<GuestBuffer>(PoolEmptied);
        _highPriority = new TransportQueue(_arena, 0, ring);
        _notifications = hasNotifications ? new NotificationQueue(_arena, 1, ring, options.OnNotification!) : null;
        _queues = new TransportQueue[queues];
        for (int i = 0; i < queues; i++)
        {
            _queues[i] = new TransportQueue(_arena, (hasNotifications ? 2 : 1) + i, ring);
        }

        Fill(_highPriorityCalls, HighPriorityCalls);
        Fill(_calls, options.Calls);
        Fill(_buffers, options.PayloadBuffers, options.PayloadBytes);
        Fill(_cacheBuffers, options.CacheBuffers, options.CacheBufferBytes);
    }

    private static VirtioFsTransport Start(VhostUserFrontend frontend, string where, VirtioFsTransportOptions? options)
    {
        VirtioFsTransport? transport = null;
        try
        {
            options ??= new VirtioFsTransportOptions();
            options.Validate();
            frontend.ReplyTimeout = options.SetUpTimeout;
            transport = new VirtioFsTransport(frontend, options);
            transport.StartQueues();
            transport.StartThreads();
            return transport;
        }
        catch (VhostUserException exception)
        {
            Abort(frontend, transport);
            throw new VirtioFsDeviceException(
                DeviceFailure.NotVirtioFs,
                $"{where} is not a vhost-user device: {exception.Message}; give the socket of a virtio-fs daemon that no "
                + "virtual machine uses",
                exception);
        }
        catch
        {
            Abort(frontend, transport);
            throw;
        }
    }

    private static void Abort(VhostUserFrontend frontend, VirtioFsTransport? transport)
    {
        if (transport is null)
        {
            frontend.Dispose();
        }
        else
        {
            transport.Dispose();
        }
    }

    /// <summary>Agrees on features.</summary>
    /// <returns>Whether there is a notification queue.</returns>
    private static bool Negotiate(VhostUserFrontend frontend, VirtioFsTransportOptions options)
    {
        var wanted = new FrontendOptions();
        frontend.Negotiate(wanted with
        {
            Features = wanted.Features
                | (options.OnNotification is null ? VirtioFeatures.None : VirtioFeatures.FsNotification),

            // Nobody would read what the back end sends there.
            ProtocolFeatures = wanted.ProtocolFeatures
                & ~(VhostUserProtocolFeatures.BackendRequests | VhostUserProtocolFeatures.BackendSendsDescriptors),
        });
        if ((frontend.NegotiatedFeatures & VirtioFeatures.Version1) == 0)
        {
            throw new VirtioFsDeviceException(
                DeviceFailure.NotVirtioFs, "the device does not offer VIRTIO_F_VERSION_1, so it is not a virtio-fs device");
        }

        return (frontend.NegotiatedFeatures & VirtioFeatures.FsNotification) != 0;
    }

    /// <summary>Reads the configuration space, and decides how many request queues to use.</summary>
    private int CountQueues(bool hasNotifications)
    {
        // A back end that does not tell has at least one of each kind.
        int others = hasNotifications ? 2 : 1;
        int available = _frontend.QueueCount == 0 ? 1 : _frontend.QueueCount - others;
        if (available < 1)
        {
            throw new VirtioFsDeviceException(
                DeviceFailure.NotVirtioFs,
                $"the device has {_frontend.QueueCount} queues, and a virtio-fs device has at least {others + 1}");
        }

        if (TryReadConfig() is { } announced)
        {
            available = (int)Math.Min((uint)available, announced);
        }

        return Math.Min(available, _options.MaxRequestQueues);
    }

    /// <returns>How many request queues the device announces; null when it has no configuration space.</returns>
    private uint? TryReadConfig()
    {
        if ((_frontend.NegotiatedProtocolFeatures & VhostUserProtocolFeatures.Config) == 0)
        {
            return null;
        }

        Span<byte> config = stackalloc byte[ConfigBytes];
        try
        {
            _frontend.GetConfig(0, config);
        }
        catch (VhostUserRefusedException)
        {
            // The daemon leaves tag and number of queues to the front end.
            return null;
        }

        ReadOnlySpan<byte> tag = config[..TagBytes];
        int end = tag.IndexOf((byte)0);
        tag = end < 0 ? tag : tag[..end];
        uint queues = BinaryPrimitives.ReadUInt32LittleEndian(config[TagBytes..]);
        if (tag.IsEmpty && queues == 0)
        {
            // Some back ends answer with zeros instead of refusing.
            return null;
        }

        if (tag.IsEmpty || tag.ContainsAnyInRange((byte)1, (byte)0x1F) || queues == 0)
        {
            throw new VirtioFsDeviceException(
                DeviceFailure.NotVirtioFs,
                $"the configuration space is not that of a virtio-fs device: tag of {tag.Length} bytes, {queues} queues");
        }

        Tag = Encoding.UTF8.GetString(tag);
        return queues;
    }

    private unsafe void Fill(TransportPool<FuseCall> pool, int count)
    {
        byte* memory = _arena.Cut((ulong)count * 2 * FuseCall.ControlBytes, out GuestAddress address);

        // The last one added is rented first: the memory is used from its start.
        for (int i = count - 1; i >= 0; i--)
        {
            ulong offset = (ulong)i * 2 * FuseCall.ControlBytes;
            pool.Add(new FuseCall(this, pool, memory + offset, new GuestAddress(address.Value + offset)));
        }
    }

    private unsafe void Fill(TransportPool<GuestBuffer> pool, int count, int size)
    {
        byte* memory = _arena.Cut((ulong)count * (ulong)size, out GuestAddress address);
        for (int i = count - 1; i >= 0; i--)
        {
            ulong offset = (ulong)i * (ulong)size;
            pool.Add(new GuestBuffer(pool, memory + offset, new GuestAddress(address.Value + offset), size));
        }
    }

    private void StartQueues()
    {
        _frontend.ShareMemory(_arena.Region);
        _frontend.StartRing(_highPriority.Describe(_arena, _errorEvent));
        if (_notifications is not null)
        {
            _notifications.Post();
            _frontend.StartRing(_notifications.Describe(_arena, _errorEvent));
        }

        foreach (TransportQueue queue in _queues)
        {
            _frontend.StartRing(queue.Describe(_arena, _errorEvent));
        }

        // Stopping a ring waits for its requests.
        _frontend.ReplyTimeout = TimeSpan.FromSeconds(60);
    }
}
