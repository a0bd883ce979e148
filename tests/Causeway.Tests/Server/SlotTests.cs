using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Tests.Daemon;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Server;

/// <summary>What requests in work have of the daemon's own memory, and what becomes of it.</summary>
public sealed class SlotTests
{
    [Fact]
    public void Most_slots_give_up_the_memory_of_long_requests_when_they_are_done()
    {
        const int count = 40;
        const int kept = 4;
        using var fileSystem = new PatientXattrs();
        using var loopback = new Loopback(fileSystem);
        using VirtioFsDriver driver = loopback.Connect();
        var client = new FuseClient(driver);
        Assert.False(client.Initialize().IsError);
        VirtioFsQueue queue = driver.RequestQueues[0];
        for (int round = 0; round < 2; round++)
        {
            for (int i = 0; i < count; i++)
            {
                Assert.True(queue.TrySubmit(GetXattr((ulong)(1000 + i)), 1 << 10, out _));
            }

            queue.Kick();
            fileSystem.WaitUntilStarted(count);
            fileSystem.CompleteAll();
            for (int i = 0; i < count; i++)
            {
                queue.Take(out int slot);
                queue.Release(slot);
            }
        }

        // One after the other, which is how most requests come: the slots that have memory are used first.
        Assert.False(client.GetAttr(NodeId.Root).IsError);
        Assert.True(
            SpinWait.SpinUntil(
                () =>
                {
                    GC.Collect();
                    return fileSystem.CountReachable() <= kept;
                },
                TimeSpan.FromSeconds(30)),
            $"{fileSystem.CountReachable()} buffers are still reachable");
        Assert.NotEqual(0, fileSystem.CountReachable());
    }

    [Fact]
    public void Without_memory_for_another_request_the_daemon_goes_on_with_what_it_has()
    {
        const int queues = 4;
        const int waiting = 256;
        using var share = new TemporaryDirectory();
        File.WriteAllBytes(share.File("file"), new byte[8192]);
        using SafeFileHandle host = File.OpenHandle(
            share.File("file"), System.IO.FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
        Assert.Equal(Errno.Success, FileLocks.SetRecord(
            (int)host.DangerousGetHandle(), new RecordLock { Type = RecordLockType.Write, Length = 10 }).Error);

        // 256 of some 60 KiB do not fit.
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, limit: "-c 0; export DOTNET_GCHeapHardLimit=A00000");
        using VirtioFsDriver driver = daemon.Connect(
            new VirtioFsDriverOptions { RequestQueues = queues, QueueSize = 1024, RequestsPerQueue = 512 });
        var client = new FuseClient(driver);
        Assert.False(client.Initialize().IsError);
        NodeId file = client.Lookup(NodeId.Root, "file").Value.NodeId;
        HandleId handle = client.Open(file, flags: 2).Value.Handle;
        int submitted = 0;
        foreach (VirtioFsQueue queue in driver.RequestQueues)
        {
            for (int i = 0; i < waiting / queues; i++)
            {
                Assert.True(queue.TrySubmit(SetLock(file, handle, (ulong)++submitted), 16, out _));
            }

            queue.Kick();
        }

        // Some are refused; on each queue others are answered at once, and none is lost.
        int answered = 0;
        for (int i = 0; i < queues; i++)
        {
            VirtioFsQueue queue = driver.RequestQueues[i];
            byte[] look = GetAttr();
            Assert.True(queue.TrySubmit(look, 120, out int asked));
            queue.Kick();
            for (int slot = -1; slot != asked; queue.Release(slot))
            {
                int length = queue.Take(out slot);
                int error = MemoryMarshal.Read<int>(queue.Reply(slot, length)[4..]);
                Assert.Equal(slot == asked ? 0 : -(int)Errno.ENOLCK, error);
                answered += slot == asked ? 0 : 1;
            }
        }

        Assert.InRange(answered, 1, submitted - queues);
        Assert.Contains(daemon.Complaints(), line => line.Contains("no memory for another request", StringComparison.Ordinal));

        // They get the lock one after the other.
        Assert.Equal(Errno.Success, FileLocks.SetRecord(
            (int)host.DangerousGetHandle(), new RecordLock { Type = RecordLockType.Unlock }).Error);
        driver.Stop();
        foreach (VirtioFsQueue queue in driver.RequestQueues)
        {
            for (; queue.TryTake(out _, out _); answered++)
            {
            }
        }

        Assert.Equal(submitted, answered);
        Assert.False(daemon.Process.HasExited);
    }

    private static byte[] GetXattr(ulong unique) => Request(
        FuseOpcode.GetXattr, unique, NodeId.Root, new FuseGetXattrIn { Size = 512 }, "user.long\0"u8);

    private static byte[] GetAttr() => Request(FuseOpcode.GetAttr, 5000, NodeId.Root, default(FuseGetAttrIn), default);

    private static byte[] SetLock(NodeId file, HandleId handle, ulong owner) => Request(
        FuseOpcode.SetLkWait,
        5000 + owner,
        file,
        new FuseLkIn { Handle = handle, Owner = owner, Start = 0, End = 9, Type = FuseLockType.Write, ProcessId = 1 },
        default);

    private static byte[] Request<T>(FuseOpcode opcode, ulong unique, NodeId node, T arguments, ReadOnlySpan<byte> name)
        where T : unmanaged
    {
        ReadOnlySpan<byte> body = MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in arguments));
        FuseInHeader header = new()
        {
            Length = (uint)(Unsafe.SizeOf<FuseInHeader>() + body.Length + name.Length),
            Opcode = opcode,
            Unique = new RequestId(unique),
            NodeId = node,
        };
        return [.. MemoryMarshal.AsBytes(new ReadOnlySpan<FuseInHeader>(in header)), .. body, .. name];
    }

    /// <summary>Has all that ask for an attribute wait, and remembers which memory they were given for it.</summary>
    private sealed class PatientXattrs : FuseFileSystem
    {
        private readonly object _gate = new();
        private readonly List<WeakReference> _memory = [];
        private readonly List<TaskCompletionSource<Result<int>>> _pending = [];

        public void WaitUntilStarted(int count)
        {
            lock (_gate)
            {
                while (_pending.Count < count)
                {
                    Assert.True(Monitor.Wait(_gate, TimeSpan.FromMinutes(1)), $"only {_pending.Count} requests were taken");
                }
            }
        }

        public void CompleteAll()
        {
            TaskCompletionSource<Result<int>>[] pending;
            lock (_gate)
            {
                pending = [.. _pending];
                _pending.Clear();
            }

            foreach (TaskCompletionSource<Result<int>> one in pending)
            {
                one.SetResult(8);
            }
        }

        public int CountReachable()
        {
            lock (_gate)
            {
                return _memory.Select(memory => memory.Target).Where(array => array is not null).Distinct().Count();
            }
        }

        public override ValueTask<Result<FuseAttrOut>> GetAttrAsync(
            NodeId node, FuseGetAttrIn arguments, RequestContext context) =>
            new(new FuseAttrOut { Attributes = new FuseAttributes { Inode = 1, Mode = 0x41ED } });

        public override ValueTask<Result<int>> GetXattrAsync(
            NodeId node, ReadOnlyMemory<byte> name, Memory<byte> destination, RequestContext context)
        {
            var request = new TaskCompletionSource<Result<int>>(TaskCreationOptions.RunContinuationsAsynchronously);
            lock (_gate)
            {
                Assert.True(MemoryMarshal.TryGetArray(destination, out ArraySegment<byte> array));
                _memory.Add(new WeakReference(array.Array));
                _pending.Add(request);
                Monitor.PulseAll(_gate);
            }

            return new(request.Task);
        }
    }
}
