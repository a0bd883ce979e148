using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using Causeway.Driver;
using Causeway.Linux;
using Causeway.VhostUser.Messages;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Server;

/// <summary>
/// The window as QEMU 11.1.3 has it, written from the record of what that does (vhost-user.md 18.4 and 18.6): it maps for
/// writing only, and whole pages only; enlarges empty files; and where it would crash, it says so in
/// <see cref="Crashes"/>. The real one is in the end-to-end tests.
/// </summary>
internal sealed unsafe class QemuWindow : IDisposable
{
    private const ulong Page = 4096;

    private readonly MessageSocket _socket;
    private readonly Thread _thread;
    private readonly Lock _lock = new();
    private readonly SortedList<ulong, ulong> _mappings = [];
    private readonly byte* _address;
    private bool _isStarted = true;
    private int _requests;

    public QemuWindow(VirtioFsDriver driver)
    {
        // QEMU asks for the size before the driver of the guest starts the device; our driver has started it.
        Size = driver.Frontend.GetSharedMemorySize(region: 0);
        _address = (byte*)Memory.Mmap(
            null, (nuint)Size, MemoryProtection.None, MapFlags.Private | MapFlags.Anonymous | MapFlags.NoReserve, -1, 0)
            .ThrowIfError("reserve").RawValue;
        Sockets.Socketpair(SocketType.Stream, out int ours, out int theirs).ThrowIfError("socketpair");
        _socket = new MessageSocket(new SafeFileHandle(ours, ownsHandle: true));
        using SafeFileHandle given = new(theirs, ownsHandle: true);
        driver.Frontend.SetBackendRequestChannel(given);
        _thread = new Thread(Serve) { IsBackground = true, Name = "qemu window" };
        _thread.Start();
    }

    public ulong Size { get; }

    /// <summary>What would have ended QEMU, or damaged a file.</summary>
    public ConcurrentQueue<string> Crashes { get; } = new();

    /// <summary>Whether the guest's driver has started the device; what comes while it has not is a crash.</summary>
    public bool IsStarted
    {
        get
        {
            lock (_lock)
            {
                return _isStarted;
            }
        }

        set
        {
            lock (_lock)
            {
                _isStarted = value;
            }
        }
    }

    /// <summary>How many requests came.</summary>
    public int Requests => Volatile.Read(ref _requests);

    public int MappingCount
    {
        get
        {
            lock (_lock)
            {
                return _mappings.Count;
            }
        }
    }

    /// <summary>What the guest sees at a place of the window; null where nothing is mapped, which in a guest is garbage.</summary>
    public byte[]? Look(ulong offset, int count)
    {
        lock (_lock)
        {
            for (ulong at = offset; at < offset + (ulong)count; at++)
            {
                if (!_mappings.Any(mapping => at >= mapping.Key && at - mapping.Key < mapping.Value))
                {
                    return null;
                }
            }

            return new Span<byte>(_address + offset, count).ToArray();
        }
    }

    public void Store(ulong offset, byte value) => _address[offset] = value;

    /// <summary>The reset of the device: QEMU drops its mappings by itself.</summary>
    public void Reset()
    {
        lock (_lock)
        {
            foreach ((ulong offset, ulong length) in _mappings)
            {
                Drop(offset, length);
            }

            _mappings.Clear();
        }
    }

    public void Dispose()
    {
        _socket.Shutdown();
        _thread.Join();
        _socket.Dispose();
        _ = Memory.Munmap(_address, (nuint)Size);
    }

    private void Serve()
    {
        using DescriptorBatch descriptors = new();
        byte[] payload = new byte[RequestMessage.MaxPayload];
        byte[] reply = new byte[20];
        while (_socket.ReceiveHeader(out VhostUserHeader header, descriptors))
        {
            _socket.ReceiveRest(payload.AsSpan(0, (int)header.Size));
            SharedMemoryMapping mapping = MemoryMarshal.Read<SharedMemoryMapping>(payload);
            bool isDone;
            lock (_lock)
            {
                Interlocked.Increment(ref _requests);
                if (!_isStarted)
                {
                    Crashes.Enqueue($"{(BackendRequest)header.Request} {mapping} while the device is not started");
                }

                isDone = (BackendRequest)header.Request == BackendRequest.SharedMemoryMap
                    ? Map(mapping, descriptors)
                    : Unmap(mapping);
            }

            descriptors.Dispose();
            MemoryMarshal.Write(reply, new VhostUserHeader(
                header.Request, VhostUserHeaderFlags.Version1 | VhostUserHeaderFlags.Reply, 8));
            MemoryMarshal.Write(reply.AsSpan(12), isDone ? 0UL : 1UL);
            if ((header.Flags & VhostUserHeaderFlags.NeedReply) == 0 || !_socket.Send(reply, []))
            {
                return;
            }
        }
    }

    private bool Map(in SharedMemoryMapping mapping, DescriptorBatch descriptors)
    {
        ulong start = mapping.RegionOffset;
        ulong end = start + mapping.Length;
        if (descriptors.Count != 1 || mapping.Length == 0 || end > Size || mapping.FileOffset % Page != 0
            || _mappings.Any(other => other.Key < end && start < other.Key + other.Value))
        {
            return false;
        }

        using SafeFileHandle file = descriptors.Take(0);
        int descriptor = (int)file.DangerousGetHandle();
        Files.Statx(descriptor, StatxMask.Basic, out StatxBuffer status).ThrowIfError("statx");
        if (status.Size == 0)
        {
            Crashes.Enqueue($"an empty file was given, and grown by {mapping}");
            return false;
        }

        if (mapping.FileOffset + ((mapping.Length + Page - 1) / Page * Page) > status.Size)
        {
            return false;
        }

        SyscallResult mapped = Memory.Mmap(
            _address + mapping.RegionOffset,
            (nuint)mapping.Length,
            MemoryProtection.Read | MemoryProtection.Write,
            MapFlags.Shared | MapFlags.Fixed,
            descriptor,
            (long)mapping.FileOffset);
        if (mapped.IsError)
        {
            Crashes.Enqueue($"a file was given that cannot be mapped for writing: {mapped.Error}");
            return false;
        }

        _mappings.Add(mapping.RegionOffset, mapping.Length);
        return true;
    }

    private bool Unmap(in SharedMemoryMapping mapping)
    {
        if (!_mappings.TryGetValue(mapping.RegionOffset, out ulong length) || length != mapping.Length)
        {
            return false;
        }

        Drop(mapping.RegionOffset, length);
        return _mappings.Remove(mapping.RegionOffset);
    }

    private void Drop(ulong offset, ulong length) => _ = Memory.Mmap(
        _address + offset,
        (nuint)length,
        MemoryProtection.None,
        MapFlags.Private | MapFlags.Anonymous | MapFlags.Fixed | MapFlags.NoReserve,
        -1,
        0);
}
