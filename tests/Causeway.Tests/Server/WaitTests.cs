using System.Runtime.InteropServices;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Tests.Daemon;
using Causeway.Tests.Fuse;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Server;

/// <summary>Requests that wait for locks, from ring to ring.</summary>
public sealed class WaitTests
{
    [Fact]
    public void Waiting_locks_hold_up_nobody_obey_INTERRUPT_and_leave_room_in_the_ring()
    {
        using var rig = new Rig();
        VirtioFsQueue queue = rig.Driver.RequestQueues[0];

        // A quarter of the ring may wait, and one more for each thread that has not seen the others' yet: nine at most.
        const int quarter = Rig.QueueSize / 4;
        const int submitted = quarter + 9 + 5;
        var slots = new Dictionary<int, ulong>();
        for (ulong unique = 1000; unique < 1000 + submitted; unique++)
        {
            slots.Add(rig.Submit(queue, SetLock(rig, unique, FuseOpcode.SetLkWait, FuseLockType.Write, owner: unique)), unique);
        }

        queue.Kick();
        var waiting = new HashSet<ulong>(slots.Values);
        Assert.True(
            SpinWait.SpinUntil(
                () =>
                {
                    if (queue.TryTake(out int slot, out int length))
                    {
                        (ulong refused, int why) = rig.Release(queue, slots, slot, length);
                        Assert.Equal(-(int)Errno.ENOLCK, why);
                        Assert.True(waiting.Remove(refused));
                    }

                    return waiting.Count == rig.FileSystem.LockFigures.Waits;
                },
                TimeSpan.FromSeconds(60)),
            "requests neither wait nor are refused");
        Assert.InRange(waiting.Count, quarter, quarter + 9);
        Assert.False(rig.Client.GetAttr(NodeId.Root).IsError);

        ulong target = waiting.First();
        rig.Interrupt(target);
        Assert.Equal((target, -(int)Errno.EINTR), rig.Take(queue, slots));

        // The next one gets it, and only that one.
        rig.Unlock();
        Assert.Equal(0, rig.Take(queue, slots).Error);
        Assert.False(rig.Client.GetAttr(NodeId.Root).IsError);
        Assert.Equal(Errno.EAGAIN, rig.TryLock());
    }

    [Fact]
    public void A_guest_that_goes_away_while_it_waits_leaves_nothing_behind()
    {
        using var rig = new Rig();
        VirtioFsQueue queue = rig.Driver.RequestQueues[0];
        var slots = new Dictionary<int, ulong>();
        for (ulong unique = 1000; unique < 1010; unique++)
        {
            slots.Add(rig.Submit(queue, SetLock(rig, unique, FuseOpcode.SetLkWait, FuseLockType.Write, unique)), unique);
        }

        slots.Add(rig.Submit(queue, SetLock(rig, 2000, FuseOpcode.SetLk, FuseLockType.Write, 1, start: 100)), 2000);
        queue.Kick();
        Assert.Equal((2000UL, 0), rig.Take(queue, slots));
        Assert.Equal(10, rig.FileSystem.LockFigures.Waits);

        // Stopping a queue waits for all that is in flight.
        rig.Driver.Stop();
        for (int i = 0; i < 10; i++)
        {
            Assert.True(queue.TryTake(out int slot, out int length));
            Assert.Equal(-(int)Errno.ENOLCK, MemoryMarshal.Read<int>(queue.Reply(slot, length)[4..]));
        }

        rig.Driver.Dispose();
        rig.Reconnect();
        Assert.Equal(new LockFigures(0, 0, 0), rig.FileSystem.LockFigures);
        rig.Unlock();
        Assert.Equal(Errno.Success, rig.TryLock());
    }

    private static byte[] SetLock(
        Rig rig, ulong unique, FuseOpcode opcode, FuseLockType type, ulong owner, ulong start = 0) => Message.Request(
            opcode,
            rig.File.Value,
            Message.Bytes(
                new FuseLkIn { Handle = rig.Handle, Owner = owner, Start = start, End = start + 9, Type = type, ProcessId = 1 }))
        .WithUnique(unique);

    /// <summary>A guest that has a file open whose first bytes the host has locked.</summary>
    private sealed class Rig : IDisposable
    {
        public const int QueueSize = 64;

        private readonly TemporaryDirectory _share = new();
        private readonly Share _opened;
        private readonly Loopback _loopback;
        private readonly SafeFileHandle _host;

        public Rig()
        {
            System.IO.File.WriteAllBytes(_share.File("file"), new byte[8192]);
            _host = System.IO.File.OpenHandle(
                _share.File("file"), System.IO.FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
            Assert.Equal(Errno.Success, TryLock());
            _opened = Share.Open(new PassthroughOptions { SharedDirectory = _share.Path });
            FileSystem = new PassthroughFileSystem(_opened);
            _loopback = new Loopback(FileSystem);
            Reconnect();
        }

        public PassthroughFileSystem FileSystem { get; }

        public VirtioFsDriver Driver { get; private set; } = null!;

        public FuseClient Client { get; private set; } = null!;

        public NodeId File { get; private set; }

        public HandleId Handle { get; private set; }

        public void Reconnect()
        {
            Driver = _loopback.Connect(new VirtioFsDriverOptions { QueueSize = QueueSize, RequestsPerQueue = QueueSize / 2 });
            Client = new FuseClient(Driver);
            Assert.False(Client.Initialize().IsError);
            Assert.NotEqual(FuseFeatures.None, Client.Features & FuseFeatures.PosixLocks);
            File = Client.Lookup(NodeId.Root, "file").Value.NodeId;
            Handle = Client.Open(File, flags: 2).Value.Handle;
        }

        public Errno TryLock() => FileLocks.SetRecord(
            (int)_host.DangerousGetHandle(), new RecordLock { Type = RecordLockType.Write, Length = 10 }).Error;

        public void Unlock() => Assert.Equal(Errno.Success, FileLocks.SetRecord(
            (int)_host.DangerousGetHandle(), new RecordLock { Type = RecordLockType.Unlock }).Error);

        public int Submit(VirtioFsQueue queue, byte[] request)
        {
            Assert.True(queue.TrySubmit(request, 16, out int slot));
            return slot;
        }

        /// <summary>The next reply: whose it is, and its error.</summary>
        public (ulong Unique, int Error) Take(VirtioFsQueue queue, Dictionary<int, ulong> slots)
        {
            int length = queue.Take(out int slot);
            return Release(queue, slots, slot, length);
        }

        public (ulong Unique, int Error) Release(VirtioFsQueue queue, Dictionary<int, ulong> slots, int slot, int length)
        {
            ReadOnlySpan<byte> reply = queue.Reply(slot, length);
            ulong unique = MemoryMarshal.Read<ulong>(reply[8..]);
            Assert.Equal(slots[slot], unique);
            int error = MemoryMarshal.Read<int>(reply[4..]);
            queue.Release(slot);
            return (unique, error);
        }

        public void Interrupt(ulong target)
        {
            VirtioFsQueue queue = Driver.HighPriorityQueue;
            Submit(queue, Message.Request(
                FuseOpcode.Interrupt, 0, Message.Bytes(new FuseInterruptIn { Unique = new RequestId(target) })).WithUnique(target | 1));
            queue.Kick();
            Assert.Equal(0, queue.Take(out int slot));
            queue.Release(slot);
        }

        public void Dispose()
        {
            Driver.Dispose();
            _loopback.Dispose();
            FileSystem.Dispose();
            _opened.Dispose();
            _host.Dispose();
            _share.Dispose();
        }
    }
}
