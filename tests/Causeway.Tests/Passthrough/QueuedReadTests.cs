#pragma warning disable CA2012 // Tasks are looked at before and after they complete.
using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Passthrough;

/// <summary>READs that wait for the disk in a ring with others (<see cref="QueuedReads"/>).</summary>
[Collection(Measured.Name)]
public sealed unsafe class QueuedReadTests
{
    private const int Pages = 4096;
    private const int PageSize = 4096;

    [Fact]
    public void Reads_by_O_DIRECT_are_many_at_a_time_and_each_has_its_bytes() => Run((rig, guest) =>
    {
        NodeId file = rig.Node;
        HandleId handle = Guest.Good(guest.Open(file, OpenFlags.ReadOnly | OpenFlags.Direct)).Handle;
        var random = new Random(1);
        for (int round = 0; round < 20; round++)
        {
            var reads = new Pending[64];
            for (int i = 0; i < reads.Length; i++)
            {
                reads[i] = rig.Read(handle, random.Next(Pages), company: 2);
            }

            Assert.All(reads, read => Assert.True(read.Context.EndsSoon));
            Assert.All(reads, read => read.Finish(PageSize));
        }

        // As it is without: short at the end, empty beyond it, and refused where the host refuses it.
        rig.Read(handle, Pages - 1, company: 2, size: 2 * PageSize).Finish(PageSize);
        rig.Read(handle, Pages, company: 2).Finish(0);
        Assert.Equal(Errno.EINVAL, rig.Read(handle, 0, company: 2, shift: 1).Result().Error);
        Assert.Equal(Errno.Success, guest.Release(file, handle));
    });

    [Fact]
    public void A_read_of_what_is_not_in_memory_leaves_its_thread_when_others_wait() => Run((rig, guest) =>
    {
        HandleId handle = Guest.Good(guest.Open(rig.Node)).Handle;
        rig.DropCache();
        Pending first = rig.Read(handle, 100, company: 2);
        Assert.True(first.Context.EndsSoon);
        first.Finish(PageSize);

        // And so does one of which a part is there: a page that was read before one that was not.
        Pending half = rig.Read(handle, 100, company: 2, size: 64 * PageSize);
        Assert.True(half.Context.EndsSoon);
        half.Finish(64 * PageSize);

        // What is there needs no ring; the end of the file is no reason for one.
        Pending there = rig.Read(handle, 100, company: 2);
        Assert.False(there.Context.EndsSoon);
        Assert.True(there.IsComplete);
        there.Finish(PageSize);
        rig.Read(handle, Pages - 1, company: 2).Finish(PageSize);
        Pending last = rig.Read(handle, Pages - 1, company: 2, size: 2 * PageSize);
        Assert.False(last.Context.EndsSoon);
        last.Finish(PageSize);
        Assert.Equal(Errno.Success, guest.Release(rig.Node, handle));
    });

    [Fact]
    public void One_that_nobody_waits_behind_stays_where_it_is() => Run((rig, guest) =>
    {
        HandleId handle = Guest.Good(guest.Open(rig.Node)).Handle;
        rig.DropCache();
        for (int i = 0; i < 100; i++)
        {
            Pending read = rig.Read(handle, i * 37, company: i % 2);
            Assert.False(read.Context.EndsSoon);
            Assert.True(read.IsComplete);
            read.Finish(PageSize);
        }

        Assert.Equal(Errno.Success, guest.Release(rig.Node, handle));
    });

    [Fact]
    public void Those_of_another_guest_are_no_company() => Run((rig, guest) =>
    {
        HandleId direct = Guest.Good(guest.Open(rig.Node, OpenFlags.ReadOnly | OpenFlags.Direct)).Handle;
        using Guest other = Guest.On(rig.Share);
        NodeId file = other.Walk("f").NodeId;
        HandleId alone = Guest.Good(other.Open(file, OpenFlags.ReadOnly | OpenFlags.Direct)).Handle;
        for (int round = 0; round < 20; round++)
        {
            Pending[] many = [.. Enumerable.Range(0, 64).Select(i => rig.Read(direct, (round * 64) + i, company: 2))];
            using var one = new Pending();
            one.Begin(other, file, alone, round, company: 0, PageSize, shift: 0);
            Assert.False(one.Context.EndsSoon);
            one.Finish(PageSize);
            Assert.All(many, read => read.Finish(PageSize));
        }

        Assert.Equal(Errno.Success, other.Release(file, alone));
        Assert.Equal(Errno.Success, guest.Release(rig.Node, direct));
    });

    [Fact]
    public void A_file_that_is_in_memory_is_asked_now_and_then_only() => Run((rig, guest) =>
    {
        HandleId handle = Guest.Good(guest.Open(rig.Node)).Handle;
        for (int i = 0; i < 7; i++)
        {
            rig.Read(handle, 0, company: 2).Finish(PageSize);
        }

        // A read that is not asked waits where it is. The first that is asked finds that the file is not in memory any more.
        rig.DropCache();
        for (int i = 0; i < 40; i++)
        {
            Pending read = rig.Read(handle, 64 + (i * 64), company: 2);
            Assert.Equal(i >= 31, read.Context.EndsSoon);
            read.Finish(PageSize);
        }

        Assert.Equal(Errno.Success, guest.Release(rig.Node, handle));
    });

    [Fact]
    public void A_file_system_that_cannot_be_asked_is_not_asked_again()
    {
        SystemCallTrace.Require();
        Run(
            (rig, guest) =>
            {
                HandleId handle = Guest.Good(guest.Open(rig.Node)).Handle;
                Pending first = rig.Read(handle, 1, company: 2);
                Assert.False(first.Context.EndsSoon);
                first.Finish(PageSize);
                Assert.Equal(Errno.Success, guest.Release(rig.Node, handle));

                handle = Guest.Good(guest.Open(rig.Node)).Handle;
                using var trace = new SystemCallTrace();
                trace.Expect("another file of tmpfs", "pread64", () => rig.Read(handle, 2, company: 2).Finish(PageSize));
                trace.Verify();
                Assert.Equal(Errno.Success, guest.Release(rig.Node, handle));
            },
            "/dev/shm");
    }

    [Fact]
    public void More_than_there_is_room_for_wait_where_they_are() => Run(
        (rig, guest) =>
        {
            HandleId handle = Guest.Good(guest.Open(rig.Node, OpenFlags.ReadOnly | OpenFlags.Direct)).Handle;
            for (int round = 0; round < 50; round++)
            {
                Pending[] reads = [.. Enumerable.Range(0, 8).Select(i => rig.Read(handle, (round * 61) + i, company: 2))];
                Assert.All(reads, read => read.Finish(PageSize));
                Assert.True(reads[0].Context.EndsSoon);
            }

            Assert.Equal(Errno.Success, guest.Release(rig.Node, handle));
        },
        queuedReads: 1);

    [Fact]
    public void A_file_that_is_closed_meanwhile_is_read_to_the_end() => Run((rig, guest) =>
    {
        for (int round = 0; round < 50; round++)
        {
            HandleId handle = Guest.Good(guest.Open(rig.Node, OpenFlags.ReadOnly | OpenFlags.Direct)).Handle;
            Pending[] reads = [.. Enumerable.Range(0, 16).Select(i => rig.Read(handle, (round * 16) + i, company: 2))];
            Assert.Equal(Errno.Success, guest.Release(rig.Node, handle));
            Assert.All(reads, read => read.Finish(PageSize));
            Assert.Equal(Errno.EBADF, rig.Read(handle, 0, company: 2).Result().Error);
            Assert.Equal(0, guest.FileSystem.Figures.OpenFiles);
        }
    });

    [Fact]
    public void Queued_reads_allocate_nothing() => Run((rig, guest) =>
    {
        HandleId handle = Guest.Good(guest.Open(rig.Node, OpenFlags.ReadOnly | OpenFlags.Direct)).Handle;
        using var pending = new Pending();
        long page = 0;
        Action reads = () =>
        {
            for (int i = 0; i < 200; i++)
            {
                pending.Begin(guest, rig.Node, handle, page++ % Pages, company: 2, PageSize, shift: 0);
                pending.Finish(PageSize);
            }
        };
        reads();
        long before = GC.GetTotalAllocatedBytes(precise: true);
        long own = Allocations.Least(reads);
        Assert.Equal(0, own);
        // The reader's thread.
        Assert.InRange(GC.GetTotalAllocatedBytes(precise: true) - before, 0, 64 << 10);
        Assert.Equal(Errno.Success, guest.Release(rig.Node, handle));
    });

    private static void Run(Action<Rig, Guest> test, string place = "/var/tmp", int queuedReads = 128) => Worker.Run(() =>
    {
        using var rig = new Rig(place, queuedReads);
        test(rig, rig.Guest);
    });

    /// <summary>A file whose every page says which it is, and a guest.</summary>
    private sealed class Rig : IDisposable
    {
        private readonly List<Pending> _reads = [];
        private readonly HostDirectory _host;

        public Rig(string place, int queuedReads)
        {
            _host = new HostDirectory(place);
            _host.WriteNumberedPages("f", Pages);
            PassthroughOptions options = _host.Options with { AllowDirectIo = true, QueuedReads = queuedReads };
            SyscallResult result = Share.TryCreateRing(options, out IoUring? ring);
            if (ring is null)
            {
                _host.Dispose();
                Assert.Skip($"there is no io_uring here: {result}");
            }

            Share = Share.Open(options, ring: ring);
            Guest = Guest.On(Share);
            Node = Guest.Walk("f").NodeId;
        }

        public Share Share { get; }

        public Guest Guest { get; }

        public NodeId Node { get; }

        public Pending Read(HandleId handle, long page, int company, int size = PageSize, int shift = 0)
        {
            var read = new Pending();
            _reads.Add(read);
            read.Begin(Guest, Node, handle, page, company, size, shift);
            return read;
        }

        public void DropCache()
        {
            using SafeFileHandle file = File.OpenHandle(_host["f"]);
            RandomAccess.FlushToDisk(file);
            Assert.Equal(
                Errno.Success, Files.PosixFadvise((int)file.DangerousGetHandle(), 0, 0, FileAdvice.DontNeed).Error);
        }

        public void Dispose()
        {
            Guest.Dispose();
            Share.Dispose();
            _reads.ForEach(read => read.Dispose());
            _host.Dispose();
        }
    }

    /// <summary>One READ, with memory of its own.</summary>
    private sealed class Pending : IDisposable, IRequestSource
    {
        private const int Room = 65 * PageSize;

        private readonly byte* _memory = (byte*)NativeMemory.AlignedAlloc(Room, PageSize);
        private readonly IoVector* _piece = (IoVector*)NativeMemory.Alloc((nuint)sizeof(IoVector));
        private ValueTask<Result<int>> _task;
        private long _page;

        public Pending() => Context = new RequestContext(new QueueWaits { Source = this });

        public RequestContext Context { get; }

        public bool IsComplete => _task.IsCompletedSuccessfully;

        public int Waiting { get; private set; }

        public void Begin(Guest guest, NodeId file, HandleId handle, long page, int company, int size, int shift)
        {
            _page = page;
            Waiting = company;
            Context.EndsSoon = false;
            new Span<byte>(_memory, Room).Fill(0xee);
            *_piece = new IoVector(_memory + shift, (nuint)size);
            _task = guest.FileSystem.ReadAsync(
                file,
                new FuseReadIn { Handle = handle, Offset = (ulong)page * PageSize, Size = (uint)size },
                new IoVectorList(_piece, 1, size),
                Context);
        }

        public Result<int> Result()
        {
            long deadline = Environment.TickCount64 + 60_000;
            while (!_task.IsCompleted)
            {
                if (Environment.TickCount64 > deadline)
                {
                    Assert.Fail("a read does not complete");
                }

                Thread.Yield();
            }

            return _task.GetAwaiter().GetResult();
        }

        public void Finish(int length)
        {
            // Without what xunit allocates.
            Result<int> result = Result();
            if (result.IsError || result.Value != length)
            {
                Assert.Fail($"not {length} bytes but {(result.IsError ? result.Error.ToString() : result.Value)}");
            }

            for (int i = 0; i < length; i += sizeof(int))
            {
                if (*(int*)(_memory + i) != _page + (i / PageSize))
                {
                    Assert.Fail($"byte {i} of page {_page} is of page {*(int*)(_memory + i)}");
                }
            }
        }

        public void Dispose()
        {
            NativeMemory.AlignedFree(_memory);
            NativeMemory.Free(_piece);
        }
    }
}
