using Causeway.VhostUser.Frontend;
using Causeway.Virtio;

namespace Causeway.Driver;

/// <content>From connected to running.</content>
public sealed partial class VirtioFsTransport
{
    // FORGET and INTERRUPT; more of them are collected meanwhile (arbitrary).
    private const int HighPriorityCalls = 16;

    private VirtioFsTransport(DeviceConnection connection, VirtioFsTransportOptions options)
    {
        _connection = connection;
        _options = options;
        _highPriorityDone = HighPriorityDone;
        int queues = Math.Min(connection.AvailableRequestQueues, options.MaxRequestQueues);
        const ulong CallBytes = 2 * FuseCall.ControlBytes;
        _arena = connection.MakeMemory(
            ((ulong)(1 + queues) * DriverRing.Footprint(connection.Ring))
            + ((ulong)(HighPriorityCalls + options.Calls) * CallBytes)
            + ((ulong)options.PayloadBuffers * (ulong)options.PayloadBytes)
            + ((ulong)options.CacheBuffers * (ulong)options.CacheBufferBytes),
            options.HugePages);

        _pools = 4;
        _calls = new TransportPool<FuseCall>(PoolEmptied);
        _highPriorityCalls = new TransportPool<FuseCall>(PoolEmptied);
        _buffers = new TransportPool<GuestBuffer>(PoolEmptied);
        _cacheBuffers = new TransportPool<GuestBuffer>(PoolEmptied);
        _highPriority = new TransportQueue(new DriverRing(_arena, 0, connection.Ring));
        _queues = new TransportQueue[queues];
        for (int i = 0; i < queues; i++)
        {
            _queues[i] = new TransportQueue(new DriverRing(_arena, connection.FirstRequestQueue + i, connection.Ring));
        }

        connection.WhenLost(EndCalls);
        Fill(_highPriorityCalls, HighPriorityCalls);
        Fill(_calls, options.Calls);
        Fill(_buffers, options.PayloadBuffers, options.PayloadBytes);
        Fill(_cacheBuffers, options.CacheBuffers, options.CacheBufferBytes);
    }

    private static VirtioFsTransport Start(VhostUserFrontend frontend, string where, VirtioFsTransportOptions? options)
    {
        options ??= new VirtioFsTransportOptions();
        try
        {
            options.Validate();
        }
        catch
        {
            frontend.Dispose();
            throw;
        }

        DeviceConnection connection = DeviceConnection.Open(frontend, where, new ConnectionOptions
        {
            Window = options.OpensWindow ? WindowUse.Open : WindowUse.None,
            OpensVersionTable = options.OpensVersionTable,
            OnNotification = options.OnNotification,
            SetUpTimeout = options.SetUpTimeout,
            QueueSize = options.QueueSize,
            UsesPackedRings = options.UsesPackedRings,
            MaxPieces = TransportQueue.MaxPieces,
        });
        VirtioFsTransport? transport = null;
        try
        {
            transport = new VirtioFsTransport(connection, options);
            connection.Start(
                transport._arena, [transport._highPriority.Ring, .. transport._queues.Select(queue => queue.Ring)]);
            transport.StartThreads();
            connection.StartNotifications();
            return transport;
        }
        catch
        {
            if (transport is null)
            {
                connection.Dispose();
            }
            else
            {
                transport.Dispose();
            }

            throw;
        }
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
}
