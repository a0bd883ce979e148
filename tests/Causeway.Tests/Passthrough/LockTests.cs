using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Passthrough;

/// <summary>Locks between guests, and between guests and the host (passthrough.md 6.2, item 21).</summary>
public sealed class LockTests
{
    private const ulong Whole = long.MaxValue;

    [Theory, EveryMode]
    public void Record_locks_hold_between_guests_and_the_host(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var first = new Opened(host.Options with { FileHandles = handles });
        using var second = new Opened(host.Options with { FileHandles = handles });
        using var outside = new HostFile(host["f"]);

        Assert.Equal(Errno.Success, first.SetLock(1, FuseLockType.Write, 10, 19));
        Assert.Equal(Errno.EAGAIN, second.SetLock(1, FuseLockType.Read, 19, 25));
        Assert.Equal(Errno.Success, second.SetLock(1, FuseLockType.Write, 20, 25));
        Assert.Equal(Errno.EAGAIN, outside.SetLock(RecordLockType.Read, 10, 1));
        Assert.Equal(Errno.EAGAIN, outside.SetLock(RecordLockType.Read, 25, 1));
        Assert.Equal(Errno.Success, outside.SetLock(RecordLockType.Write, 26, 0));
        Assert.Equal(Errno.EAGAIN, first.SetLock(1, FuseLockType.Read, 0, Whole));

        // Half of it goes back.
        Assert.Equal(Errno.Success, first.SetLock(1, FuseLockType.Unlock, 10, 14));
        Assert.Equal(Errno.Success, second.SetLock(1, FuseLockType.Read, 10, 14));
        Assert.Equal(Errno.EAGAIN, second.SetLock(1, FuseLockType.Read, 10, 15));

        // Readers share.
        Assert.Equal(Errno.Success, first.SetLock(1, FuseLockType.Read, 10, 14));
        Assert.Equal(Errno.Success, outside.SetLock(RecordLockType.Read, 10, 5));
    });

    [Fact]
    public void A_lock_in_the_way_is_described_and_its_process_told_if_it_is_the_guests() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Opened(host.Options);
        using var outside = new HostFile(host["f"]);
        Assert.Equal(Errno.Success, guest.SetLock(7, FuseLockType.Write, 100, Whole, process: 4711));
        Assert.Equal(Errno.Success, outside.SetLock(RecordLockType.Read, 0, 10));

        Assert.Equal(FuseLockType.Unlock, guest.GetLock(7, FuseLockType.Write, 50, Whole).Type);
        Assert.Equal(FuseLockType.Unlock, guest.GetLock(8, FuseLockType.Write, 50, 99).Type);
        FuseLkOut inTheWay = guest.GetLock(8, FuseLockType.Read, 50, 200);
        Assert.Equal((100UL, Whole, FuseLockType.Write, 4711u), (inTheWay.Start, inTheWay.End, inTheWay.Type, inTheWay.ProcessId));
        inTheWay = guest.GetLock(7, FuseLockType.Write, 0, 20);
        Assert.Equal((0UL, 9UL, FuseLockType.Read, 0u), (inTheWay.Start, inTheWay.End, inTheWay.Type, inTheWay.ProcessId));
    });

    [Fact]
    public void Flush_gives_back_the_locks_of_its_owner_and_no_others() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Opened(host.Options);
        using var outside = new HostFile(host["f"]);
        Assert.Equal(Errno.Success, guest.SetLock(1, FuseLockType.Write, 0, 9));
        Assert.Equal(Errno.Success, guest.SetLock(1, FuseLockType.Write, 50, 59));
        Assert.Equal(Errno.Success, guest.SetLock(2, FuseLockType.Write, 10, 19));
        Assert.Equal(new LockFigures(2, 3, 0), guest.System.LockFigures);
        int descriptors = guest.System.Figures.Descriptors;

        Assert.Equal(Errno.Success, guest.Flush(owner: 1));

        Assert.Equal(Errno.Success, outside.SetLock(RecordLockType.Write, 0, 10));
        Assert.Equal(Errno.Success, outside.SetLock(RecordLockType.Write, 50, 10));
        Assert.Equal(Errno.EAGAIN, outside.SetLock(RecordLockType.Write, 10, 10));
        Assert.Equal(new LockFigures(1, 1, 0), guest.System.LockFigures);
        Assert.Equal(descriptors - 1, guest.System.Figures.Descriptors);
    });

    [Fact]
    public void Locks_of_an_open_file_of_the_guest_end_with_it_though_nobody_flushes_them() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Opened(host.Options);
        using var outside = new HostFile(host["f"]);
        HandleId other = Guest.Good(guest.Guest.Open(guest.Node, OpenFlags.ReadWrite)).Handle;
        Assert.Equal(Errno.Success, guest.SetLock(1, FuseLockType.Write, 0, 9, handle: other));
        Assert.Equal(Errno.Success, guest.SetLock(2, FuseLockType.Write, 10, 19));
        // Another process has used the file that ends, but its lock is the other one's.
        Assert.Equal(Errno.Success, guest.SetLock(3, FuseLockType.Write, 20, 29, handle: other));
        Assert.Equal(Errno.Success, guest.SetLock(3, FuseLockType.Write, 30, 39));

        Assert.Equal(Errno.Success, guest.Guest.Release(guest.Node, other));

        Assert.Equal(Errno.Success, outside.SetLock(RecordLockType.Write, 0, 10));
        Assert.Equal(Errno.EAGAIN, outside.SetLock(RecordLockType.Write, 10, 1));
        Assert.Equal(Errno.EAGAIN, outside.SetLock(RecordLockType.Write, 30, 1));
        Assert.Equal(2, guest.System.LockFigures.Owners);
    });

    [Fact]
    public void A_wait_ends_when_the_lock_is_given_back_and_blocks_no_thread() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Opened(host.Options);
        using var outside = new HostFile(host["f"]);
        Assert.Equal(Errno.Success, outside.SetLock(RecordLockType.Write, 0, 0));

        Task<Errno> record = guest.Wait(1, FuseLockType.Write, 5, 9, new RequestContext());
        Assert.False(record.IsCompleted);
        Assert.Equal(1, guest.System.LockFigures.Waits);
        Assert.Equal(Errno.Success, outside.SetLock(RecordLockType.Unlock, 0, 0));
        Assert.Equal(Errno.Success, Finished(record));
        Assert.Equal(Errno.EAGAIN, outside.SetLock(RecordLockType.Read, 9, 1));
        Assert.Equal(new LockFigures(1, 1, 0), guest.System.LockFigures);

        Assert.Equal(Errno.Success, outside.Flock(FlockOperation.Exclusive));
        Task<Errno> flock = guest.Wait(1, FuseLockType.Read, 0, Whole, new RequestContext(), FuseLockFlags.Flock);
        Assert.False(flock.IsCompleted);
        Assert.Equal(Errno.Success, outside.Flock(FlockOperation.Unlock));
        Assert.Equal(Errno.Success, Finished(flock));
        Assert.Equal(Errno.EAGAIN, outside.Flock(FlockOperation.Exclusive));
    });

    [Fact]
    public void A_wait_ends_early_by_interrupt_by_the_end_of_the_session_and_after_its_time() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var outside = new HostFile(host["f"]);
        Assert.Equal(Errno.Success, outside.SetLock(RecordLockType.Write, 0, 0));
        Assert.Equal(Errno.Success, outside.Flock(FlockOperation.Exclusive));
        foreach (FuseLockFlags kind in new[] { FuseLockFlags.None, FuseLockFlags.Flock })
        {
            using (var guest = new Opened(host.Options))
            {
                var interrupted = new RequestContext();
                Task<Errno> task = guest.Wait(1, FuseLockType.Write, 0, 9, interrupted, kind);
                interrupted.Cancel(isInterrupted: true)!.Cancel();
                Assert.Equal(Errno.EINTR, Finished(task));

                // Interrupted before it waits.
                interrupted = new RequestContext();
                _ = interrupted.Cancel(isInterrupted: true);
                Assert.Equal(Errno.EINTR, Finished(guest.Wait(1, FuseLockType.Write, 0, 9, interrupted, kind)));

                // Not by the guest's will: it would not expect EINTR.
                task = guest.Wait(1, FuseLockType.Write, 0, 9, new RequestContext(), kind);
                guest.System.Destroy();
                Assert.Equal(Errno.ENOLCK, Finished(task));
                Assert.Equal(0, guest.System.Figures.OpenFiles);
            }

            using var impatient = new Opened(host.Options with { LockWaitLimit = TimeSpan.FromMilliseconds(30) });
            Assert.Equal(Errno.ENOLCK, Finished(impatient.Wait(1, FuseLockType.Write, 0, 9, new RequestContext(), kind)));
            Assert.Equal(0, impatient.System.LockFigures.Waits);
        }
    });

    [Fact]
    public void All_locks_go_with_the_session_and_the_next_one_starts_without() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var outside = new HostFile(host["f"]);
        using var guest = new Opened(host.Options);
        Assert.Equal(Errno.Success, guest.SetLock(1, FuseLockType.Write, 0, Whole));
        Assert.Equal(Errno.Success, guest.SetLock(0, FuseLockType.Write, 0, Whole, flags: FuseLockFlags.Flock));
        Assert.Equal(Errno.EAGAIN, outside.SetLock(RecordLockType.Read, 0, 0));
        Assert.Equal(Errno.EAGAIN, outside.Flock(FlockOperation.Shared));

        Assert.Equal(Errno.Success, Guest.Done(guest.System.InitializeAsync(guest.Guest.Negotiation)));

        Assert.Equal(new LockFigures(0, 0, 0), guest.System.LockFigures);
        Assert.Equal(Errno.Success, outside.SetLock(RecordLockType.Write, 0, 0));
        Assert.Equal(Errno.Success, outside.Flock(FlockOperation.Exclusive));
    });

    [Fact]
    public void Flock_belongs_to_an_open_file_and_ends_with_it() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Opened(host.Options);
        using var outside = new HostFile(host["f"]);
        HandleId other = Guest.Good(guest.Guest.Open(guest.Node)).Handle;
        Assert.Equal(Errno.Success, guest.SetLock(5, FuseLockType.Read, 0, Whole, flags: FuseLockFlags.Flock));
        // Read-only will do, as with flock(2).
        Assert.Equal(Errno.Success, guest.SetLock(5, FuseLockType.Read, 0, Whole, flags: FuseLockFlags.Flock, handle: other));
        Assert.Equal(Errno.EAGAIN, guest.SetLock(5, FuseLockType.Write, 0, Whole, flags: FuseLockFlags.Flock, handle: other));
        Assert.Equal(Errno.Success, guest.SetLock(5, FuseLockType.Unlock, 0, Whole, flags: FuseLockFlags.Flock));
        Assert.Equal(Errno.Success, guest.SetLock(5, FuseLockType.Write, 0, Whole, flags: FuseLockFlags.Flock, handle: other));
        Assert.Equal(Errno.EAGAIN, outside.Flock(FlockOperation.Shared));

        Assert.Equal(Errno.Success, Guest.Done(guest.System.ReleaseAsync(
            guest.Node,
            new FuseReleaseIn { Handle = other, ReleaseFlags = FuseReleaseFlags.FlockUnlock },
            guest.Guest.Context)));
        Assert.Equal(Errno.Success, outside.Flock(FlockOperation.Exclusive));
    });

    [Fact]
    public void What_no_guest_may_have_is_refused() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Opened(host.Options);
        HandleId readable = Guest.Good(guest.Guest.Open(guest.Node)).Handle;
        HandleId directory = Guest.Good(guest.Guest.OpenDir(NodeId.Root)).Handle;
        Assert.Equal(Errno.EBADF, guest.SetLock(1, FuseLockType.Write, 0, 9, handle: readable));
        Assert.Equal(Errno.Success, guest.SetLock(1, FuseLockType.Read, 0, 9, handle: readable));
        Assert.Equal(Errno.EBADF, guest.SetLock(1, FuseLockType.Read, 0, 9, handle: new HandleId(99)));
        Assert.Equal(Errno.EBADF, guest.SetLock(1, FuseLockType.Read, 0, 9, handle: directory));
        Assert.Equal(Errno.EINVAL, Guest.Done(guest.System.SetLockAsync(
            NodeId.Root, new FuseLkIn { Handle = directory, End = 9 }, mayWait: true, guest.Guest.Context)));
        Assert.Equal(Errno.Success, guest.SetLock(99, FuseLockType.Unlock, 0, 9));
        Assert.Equal(new LockFigures(1, 1, 0), guest.System.LockFigures);
    });

    [Fact]
    public void Too_many_locks_waits_and_descriptors_are_ENOLCK_until_there_is_room_again() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var outside = new HostFile(host["f"]);
        using var guest = new Opened(host.Options with { MaxLocks = 3, MaxLockWaits = 2, MaxDescriptors = 24 });
        Assert.Equal(Errno.Success, outside.SetLock(RecordLockType.Write, 1000, 1));

        Assert.Equal(Errno.Success, guest.SetLock(1, FuseLockType.Write, 0, 9));
        Assert.Equal(Errno.Success, guest.SetLock(1, FuseLockType.Write, 20, 29));
        Assert.Equal(Errno.Success, guest.SetLock(2, FuseLockType.Write, 40, 49));
        Assert.Equal(Errno.ENOLCK, guest.SetLock(2, FuseLockType.Write, 60, 69));
        // It would make two of one.
        Assert.Equal(Errno.ENOLCK, guest.SetLock(1, FuseLockType.Unlock, 4, 5));
        Assert.Equal(Errno.Success, guest.SetLock(1, FuseLockType.Unlock, 0, Whole));
        Assert.Equal(Errno.Success, guest.SetLock(2, FuseLockType.Write, 60, 69));

        RequestContext[] contexts = [new(), new(), new()];
        Task<Errno>[] waits =
            [.. contexts.Select(context => guest.Wait(1, FuseLockType.Write, 1000, 1000, context))];
        Assert.Equal(Errno.ENOLCK, Finished(waits[2]));
        contexts[0].Cancel(isInterrupted: true)!.Cancel();
        Assert.Equal(Errno.EINTR, Finished(waits[0]));
        waits[2] = guest.Wait(1, FuseLockType.Write, 1000, 1000, contexts[2]);
        Assert.False(waits[2].IsCompleted);
        Assert.Equal(Errno.Success, outside.SetLock(RecordLockType.Unlock, 0, 0));
        Assert.Equal(Errno.Success, Finished(waits[1]));
        Assert.Equal(Errno.Success, Finished(waits[2]));
        Assert.Equal(Errno.Success, guest.SetLock(1, FuseLockType.Unlock, 0, Whole));
        Assert.Equal(Errno.Success, guest.SetLock(2, FuseLockType.Unlock, 0, Whole));

        // Each owner has a descriptor; those without locks make room for the next.
        for (ulong owner = 100; owner < 200; owner++)
        {
            Assert.Equal(Errno.Success, guest.SetLock(owner, FuseLockType.Read, owner, owner));
            Assert.Equal(Errno.Success, guest.SetLock(owner, FuseLockType.Unlock, owner, owner));
        }

        Assert.InRange(guest.System.Figures.Descriptors, 1, 24);
    });

    [Fact]
    public void Threads_of_all_sides_take_turns_while_waits_are_interrupted() => Worker.Run(() =>
    {
        const int Sides = 3;
        const int ThreadsPerSide = 3;
        const int Rounds = 150;
        using HostDirectory host = new HostDirectory().Fill();
        using var first = new Opened(host.Options);
        using var second = new Opened(host.Options);
        int inside = 0;
        int entered = 0;
        int interrupted = 0;
        Worker.RunAll(Sides * ThreadsPerSide, number =>
        {
            using HostFile? outside = number % Sides == 2 ? new HostFile(host["f"]) : null;
            Opened guest = number % Sides == 0 ? first : second;
            var random = new Random(number);
            ulong owner = (ulong)number;
            for (int round = 0; round < Rounds; round++)
            {
                if (outside is not null)
                {
                    Assert.Equal(Errno.Success, outside.SetLockWait(RecordLockType.Write, 0, 0));
                }
                else
                {
                    Errno error;
                    do
                    {
                        var context = new RequestContext();
                        Task<Errno> task = guest.Wait(owner, FuseLockType.Write, 0, Whole, context);
                        if (random.Next(4) == 0)
                        {
                            context.Cancel(isInterrupted: true)?.Cancel();
                        }

                        error = Finished(task);
                        _ = error == Errno.EINTR ? Interlocked.Increment(ref interrupted) : 0;
                    }
                    while (error == Errno.EINTR);

                    Assert.Equal(Errno.Success, error);
                }

                Assert.Equal(1, Interlocked.Increment(ref inside));
                entered++;
                // Now and then long enough for all others to be waiting, also when nothing else loads the machine.
                Thread.Sleep(round % 10 == 0 ? 1 : 0);
                Assert.Equal(0, Interlocked.Decrement(ref inside));
                Assert.Equal(
                    Errno.Success,
                    outside?.SetLock(RecordLockType.Unlock, 0, 0) ?? guest.SetLock(owner, FuseLockType.Unlock, 0, Whole));
            }
        });
        Assert.Equal(Sides * ThreadsPerSide * Rounds, entered);
        Assert.NotEqual(0, interrupted);
        Assert.Equal(0, first.System.LockFigures.Waits + second.System.LockFigures.Waits);
        Assert.Equal(0, first.System.LockFigures.Locks + second.System.LockFigures.Locks);
    });

    [Fact]
    public void Ranges_are_kept_as_the_kernel_keeps_them()
    {
        var random = new Random(1);
        for (int run = 0; run < 300; run++)
        {
            var ranges = new LockRanges();
            var bytes = new FuseLockType[40];
            Array.Fill(bytes, FuseLockType.Unlock);
            for (int step = 0; step < 40; step++)
            {
                int start = random.Next(40);
                int end = random.Next(start, 40);
                var type = (FuseLockType)random.Next(3);
                ranges.Set(start, end, type);
                bytes.AsSpan(start, end - start + 1).Fill(type);

                int runs = Enumerable.Range(0, 40)
                    .Count(i => bytes[i] != FuseLockType.Unlock && (i == 0 || bytes[i - 1] != bytes[i]));
                Assert.Equal(runs, ranges.Count);
                start = random.Next(40);
                end = random.Next(start, 40);
                Assert.Equal(
                    bytes.AsSpan(start, end - start + 1).Contains(FuseLockType.Write), ranges.Conflicts(start, end, FuseLockType.Read));
                Assert.Equal(
                    bytes.AsSpan(start, end - start + 1).ContainsAnyExcept(FuseLockType.Unlock),
                    ranges.Conflicts(start, end, FuseLockType.Write));
            }
        }

        var whole = new LockRanges();
        whole.Set(0, long.MaxValue, FuseLockType.Write);
        whole.Set(5, long.MaxValue, FuseLockType.Unlock);
        Assert.Equal(1, whole.Count);
        Assert.False(whole.Conflicts(5, long.MaxValue, FuseLockType.Write));
    }

    // With a deadline, so that a lost wait fails the test and does not hang it.
    private static Errno Finished(Task<Errno> task)
    {
        Assert.True(task.Wait(TimeSpan.FromSeconds(60)), "the wait never ended");
        return task.Result;
    }

    /// <summary>A guest with the file f open for reading and writing.</summary>
    private sealed class Opened : IDisposable
    {
        private readonly HandleId _handle;

        public Opened(PassthroughOptions options)
        {
            Guest = new Guest(options);
            Node = Guest.Walk("f").NodeId;
            _handle = Passthrough.Guest.Good(Guest.Open(Node, OpenFlags.ReadWrite)).Handle;
        }

        public Guest Guest { get; }

        public PassthroughFileSystem System => Guest.FileSystem;

        public NodeId Node { get; }

        public Errno SetLock(
            ulong owner,
            FuseLockType type,
            ulong start,
            ulong end,
            uint process = 1,
            FuseLockFlags flags = FuseLockFlags.None,
            HandleId? handle = null) => Passthrough.Guest.Done(System.SetLockAsync(
                Node, Lock(owner, type, start, end, process, flags, handle ?? _handle), mayWait: false, new RequestContext()));

        public Task<Errno> Wait(
            ulong owner,
            FuseLockType type,
            ulong start,
            ulong end,
            RequestContext context,
            FuseLockFlags flags = FuseLockFlags.None) => System.SetLockAsync(
                Node, Lock(owner, type, start, end, 1, flags, _handle), mayWait: true, context).AsTask();

        public FuseLkOut GetLock(ulong owner, FuseLockType type, ulong start, ulong end) =>
            Passthrough.Guest.Good(Passthrough.Guest.Done(System.GetLockAsync(
                Node, Lock(owner, type, start, end, 1, FuseLockFlags.None, _handle), new RequestContext())));

        public Errno Flush(ulong owner) => Passthrough.Guest.Done(System.FlushAsync(
            Node, new FuseFlushIn { Handle = _handle, LockOwner = owner }, new RequestContext()));

        public void Dispose() => Guest.Dispose();

        private static FuseLkIn Lock(
            ulong owner, FuseLockType type, ulong start, ulong end, uint process, FuseLockFlags flags, HandleId handle) => new()
            {
                Handle = handle,
                Owner = owner,
                Start = start,
                End = end,
                Type = type,
                ProcessId = process,
                Flags = flags,
            };
    }

    /// <summary>
    /// The file as a program of the host has it open. Another open file is another owner for the kernel, whichever process it is in.
    /// </summary>
    private sealed class HostFile(string path) : IDisposable
    {
        // Not by File.OpenHandle, which takes an flock(2) of its own.
        private readonly SafeFileHandle _file = new(
            Files.Openat(Files.WorkingDirectory, Guest.Terminated(path), OpenFlags.ReadWrite | OpenFlags.CloseOnExec)
                .ThrowIfError($"open '{path}'").Descriptor,
            ownsHandle: true);

        private int Descriptor => (int)_file.DangerousGetHandle();

        public Errno SetLock(RecordLockType type, long start, long length) => FileLocks.SetRecord(
            Descriptor, new RecordLock { Type = type, Start = start, Length = length }).Error;

        public Errno SetLockWait(RecordLockType type, long start, long length) => FileLocks.SetRecordWait(
            Descriptor, new RecordLock { Type = type, Start = start, Length = length }).Error;

        public Errno Flock(FlockOperation operation) => FileLocks.Flock(Descriptor, operation).Error;

        public void Dispose() => _file.Dispose();
    }
}
