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

    // All regions of memory together, where each of them is sent on its own; a machine has at least one besides.
    private const int MaxSlots = 512;

    private readonly MessageSocket _socket;
    private readonly Thread _thread;
    private readonly Lock _lock = new();
    private readonly SortedList<ulong, Mapping> _mappings = [];
    private readonly byte* _address;
    private readonly bool _hasMemorySlots;
    private bool _isStarted = true;
    private int _requests;

    public QemuWindow(VirtioFsDriver driver)
    {
        // QEMU asks for the size before the driver of the guest starts the device; our driver has started it.
        Size = driver.Frontend.GetSharedMemorySize(region: 0);
        _hasMemorySlots =
            driver.Frontend.NegotiatedProtocolFeatures.HasFlag(VhostUserProtocolFeatures.ConfigureMemorySlots);
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

    /// <summary>
    /// Held, QEMU's one thread for everything is busy elsewhere: what comes on the channel lies there until it is free again.
    /// </summary>
    public Lock MainLoop { get; } = new();

    /// <summary>Whether something lies in the channel.</summary>
    public bool HasUnread => Poll.Now((int)_socket.Handle.DangerousGetHandle(), PollEvents.Readable) != PollEvents.None;

    /// <summary>What was unmapped, and how large the file was when that was asked for.</summary>
    public ConcurrentQueue<(ulong Offset, ulong Length, ulong FileSize)> Unmapped { get; } = new();

    /// <summary>How many requests came that nobody knows.</summary>
    public int UnknownRequests { get; private set; }

    /// <summary>How many requests came, of those that do something.</summary>
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
                if (!_mappings.Any(mapping => at >= mapping.Key && at - mapping.Key < mapping.Value.Length))
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
            if (_hasMemorySlots && _mappings.Count > 0)
            {
                Crashes.Enqueue($"a reset with {_mappings.Count} mappings that were sent as memory slots");
            }

            while (_mappings.Count > 0)
            {
                Drop(_mappings.GetKeyAtIndex(0));
            }
        }
    }

    public void Dispose()
    {
        _socket.Shutdown();
        _thread.Join();
        _socket.Dispose();
        while (_mappings.Count > 0)
        {
            Drop(_mappings.GetKeyAtIndex(0));
        }

        _ = Memory.Munmap(_address, (nuint)Size);
    }

    private void Serve()
    {
        using DescriptorBatch descriptors = new();
        byte[] payload = new byte[RequestMessage.MaxPayload];
        byte[] reply = new byte[20];
        while (Poll.Wait([new PollDescriptor((int)_socket.Handle.DangerousGetHandle(), PollEvents.Readable)], Poll.Forever).Count > 0)
        {
            lock (MainLoop)
            {
                if (!_socket.ReceiveHeader(out VhostUserHeader header, descriptors))
                {
                    return;
                }

                _socket.ReceiveRest(payload.AsSpan(0, (int)header.Size));
                bool isDone = Handle((BackendRequest)header.Request, MemoryMarshal.Read<SharedMemoryMapping>(payload), descriptors);
                descriptors.Dispose();
                MemoryMarshal.Write(reply, new VhostUserHeader(
                    header.Request, VhostUserHeaderFlags.Version1 | VhostUserHeaderFlags.Reply, 8));
                MemoryMarshal.Write(reply.AsSpan(12), isDone ? 0UL : 1UL);
                if ((header.Flags & VhostUserHeaderFlags.NeedReply) != 0 && !_socket.Send(reply, []))
                {
                    return;
                }
            }
        }
    }

    private bool Handle(BackendRequest request, in SharedMemoryMapping mapping, DescriptorBatch descriptors)
    {
        lock (_lock)
        {
            if (request is not (BackendRequest.SharedMemoryMap or BackendRequest.SharedMemoryUnmap))
            {
                UnknownRequests++;
                return false;
            }

            Interlocked.Increment(ref _requests);
            if (!_isStarted)
            {
                Crashes.Enqueue($"{request} {mapping} while the device is not started");
            }

            return request == BackendRequest.SharedMemoryMap ? Map(mapping, descriptors) : Unmap(mapping);
        }
    }

    private bool Map(in SharedMemoryMapping mapping, DescriptorBatch descriptors)
    {
        ulong start = mapping.RegionOffset;
        ulong end = start + mapping.Length;
        if (descriptors.Count != 1 || mapping.Length == 0 || end > Size || mapping.FileOffset % Page != 0
            || _mappings.Any(other => other.Key < end && start < other.Key + other.Value.Length))
        {
            return false;
        }

        SafeFileHandle file = descriptors.Take(0);
        bool isMapped = Map(mapping, file);
        if (isMapped)
        {
            _mappings.Add(mapping.RegionOffset, new Mapping(mapping.FileOffset, mapping.Length, file));
            if (_hasMemorySlots && _mappings.Count >= MaxSlots)
            {
                Crashes.Enqueue($"{_mappings.Count} mappings that were sent as memory slots");
            }
        }
        else
        {
            file.Dispose();
        }

        return isMapped;
    }

    private bool Map(in SharedMemoryMapping mapping, SafeFileHandle file)
    {
        ulong size = SizeOf(file);
        if (size == 0)
        {
            Crashes.Enqueue($"an empty file was given, and grown by {mapping}");
            return false;
        }

        if (mapping.FileOffset + RoundUp(mapping.Length) > size)
        {
            return false;
        }

        SyscallResult mapped = Memory.Mmap(
            _address + mapping.RegionOffset,
            (nuint)mapping.Length,
            MemoryProtection.Read | MemoryProtection.Write,
            MapFlags.Shared | MapFlags.Fixed,
            (int)file.DangerousGetHandle(),
            (long)mapping.FileOffset);
        if (mapped.IsError)
        {
            Crashes.Enqueue($"a file was given that cannot be mapped for writing: {mapped.Error}");
            return false;
        }

        return true;
    }

    private bool Unmap(in SharedMemoryMapping mapping)
    {
        if (!_mappings.TryGetValue(mapping.RegionOffset, out Mapping mapped) || mapped.Length != mapping.Length)
        {
            return false;
        }

        Unmapped.Enqueue((mapping.RegionOffset, mapping.Length, SizeOf(mapped.File)));
        Drop(mapping.RegionOffset);
        return true;
    }

    private void Drop(ulong offset)
    {
        _ = Memory.Mmap(
            _address + offset,
            (nuint)_mappings[offset].Length,
            MemoryProtection.None,
            MapFlags.Private | MapFlags.Anonymous | MapFlags.Fixed | MapFlags.NoReserve,
            -1,
            0);
        _mappings[offset].File.Dispose();
        _mappings.Remove(offset);
    }

    private static ulong RoundUp(ulong length) => (length + Page - 1) / Page * Page;

    private static ulong SizeOf(SafeFileHandle file)
    {
        Files.Statx((int)file.DangerousGetHandle(), StatxMask.Basic, out StatxBuffer status).ThrowIfError("statx");
        return status.Size;
    }

    private readonly record struct Mapping(ulong FileOffset, ulong Length, SafeFileHandle File);
}
