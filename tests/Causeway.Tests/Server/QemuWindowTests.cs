using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Server;
using Causeway.Tests.Passthrough;
using Causeway.VhostUser.Backend;
using Causeway.VhostUser.Frontend;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Server;

/// <summary>
/// What a front end like QEMU must never be asked, and that files are right for its guests all the same
/// (vhost-user.md 18.4 to 18.7).
/// </summary>
public sealed class QemuWindowTests : IDisposable
{
    private const ulong Slot = DaxGuest.Slot;
    private const FuseMappingFlags ReadWrite = FuseMappingFlags.Read | FuseMappingFlags.Write;

    private readonly HostDirectory _host = new();

    [Fact]
    public void Only_files_of_whole_pages_that_may_be_written_are_offered()
    {
        DaxGuest.WriteFile(_host["whole"], 1 << 20);
        DaxGuest.WriteFile(_host["odd"], (1 << 20) + 1);
        DaxGuest.WriteFile(_host["empty"], 0);
        using DaxGuest guest = new(_host.Options);
        using QemuWindow window = new(guest.Driver);
        Assert.Equal(21, guest.Initialize().MapAlignment);
        Assert.Equal(FuseAttributeFlags.Dax, guest.Lookup("whole").Attributes.Flags);
        Assert.Equal(FuseAttributeFlags.None, guest.Lookup("odd").Attributes.Flags);
        Assert.Equal(FuseAttributeFlags.None, guest.Lookup("empty").Attributes.Flags);
        AssertUnharmed(window);
    }

    [Fact]
    public void A_share_that_may_only_be_read_is_not_mapped_at_all()
    {
        DaxGuest.WriteFile(_host["f"], 1 << 20);
        using DaxGuest guest = new(_host.Options with { ReadOnly = true });
        using QemuWindow window = new(guest.Driver);
        guest.Initialize();
        NodeEntry entry = guest.Lookup("f");
        Assert.Equal(FuseAttributeFlags.None, entry.Attributes.Flags);
        Assert.Equal(Errno.EOPNOTSUPP, guest.Map(entry.NodeId, 0));
        Assert.Equal(0, window.MappingCount);
        AssertUnharmed(window);
    }

    [Fact]
    public void A_guest_that_maps_everything_gets_errors_for_what_would_be_damaged()
    {
        DaxGuest.WriteFile(_host["whole"], 1 << 20);
        DaxGuest.WriteFile(_host["odd"], 5000);
        DaxGuest.WriteFile(_host["empty"], 0);
        using DaxGuest guest = new(_host.Options);
        using QemuWindow window = new(guest.Driver);
        guest.Initialize(always: true);
        Assert.Equal(Errno.Success, guest.Map(guest.Lookup("whole").NodeId, 0));
        Assert.Equal(Errno.EINVAL, guest.Map(guest.Lookup("odd").NodeId, Slot));
        Assert.Equal(Errno.EINVAL, guest.Map(guest.Lookup("empty").NodeId, Slot));
        Assert.Equal(5000, new FileInfo(_host["odd"]).Length);
        Assert.Equal(0, new FileInfo(_host["empty"]).Length);
        AssertUnharmed(window);
    }

    [Fact]
    public void What_a_mapped_file_grows_by_is_mapped_before_the_guest_knows()
    {
        DaxGuest.WriteFile(_host["f"], 1 << 20);
        using DaxGuest guest = new(_host.Options);
        using QemuWindow window = new(guest.Driver);
        guest.Initialize();
        NodeId node = guest.Lookup("f").NodeId;
        Assert.Equal(Errno.Success, guest.Map(node, 0, flags: ReadWrite));
        Assert.Null(window.Look((1 << 20) - 1, 2));
        HandleId handle = guest.Client.Open(node, flags: 2).Value.Handle;

        Assert.Equal(3u, guest.Client.Write(node, handle, 1 << 20, "abc"u8).Value.Size);
        Assert.Equal("abc"u8, window.Look(1 << 20, 3)!);
        Assert.Equal((1 << 20) + 3, new FileInfo(_host["f"]).Length);
        // From now on the file is not one for QEMU, and the guest lets go of it when it can.
        Assert.Equal(FuseAttributeFlags.None, guest.Client.GetAttr(node).Value.Attributes.Flags);

        // The rest of the slot costs nothing more; the next slot is mapped when the guest asks.
        int requests = window.Requests;
        Assert.Equal(3u, guest.Client.Write(node, handle, 1_500_000, "def"u8).Value.Size);
        Assert.Equal("def"u8, window.Look(1_500_000, 3)!);
        Assert.Equal(requests, window.Requests);
        Assert.Equal(Errno.Success, guest.Resize(node, (3 << 20) + 5));
        Assert.Equal(Errno.Success, guest.Map(node, Slot, Slot, flags: ReadWrite));
        Assert.Equal(0, window.Look(Slot + (1 << 20) + 4, 1)![0]);
        Assert.Equal((3 << 20) + 5, new FileInfo(_host["f"]).Length);

        // A guest that has let go of the end of such a file maps it again.
        Assert.Equal(Errno.Success, guest.Unmap((0, ulong.MaxValue)));
        Assert.Equal(0, window.MappingCount);
        Assert.Equal(Errno.Success, guest.Map(node, 3 * Slot, Slot, flags: ReadWrite));
        Assert.NotNull(window.Look((3 * Slot) + (1 << 20), 5));
        Assert.Equal((3 << 20) + 5, new FileInfo(_host["f"]).Length);
        AssertUnharmed(window);
    }

    [Fact]
    public void What_the_host_has_appended_is_mapped_before_the_guest_knows()
    {
        DaxGuest.WriteFile(_host["f"], 1 << 20);
        using DaxGuest guest = new(_host.Options);
        using QemuWindow window = new(guest.Driver);
        guest.Initialize();
        NodeId node = guest.Lookup("f").NodeId;
        Assert.Equal(Errno.Success, guest.Map(node, 0));
        File.AppendAllText(_host["f"], "appended");
        Assert.Equal((1UL << 20) + 8, guest.Client.GetAttr(node).Value.Attributes.Size);
        Assert.Equal("appended"u8, window.Look(1 << 20, 8)!);
        AssertUnharmed(window);
    }

    [Fact]
    public void What_one_guest_cuts_off_is_unmapped_from_all_before()
    {
        DaxGuest.WriteFile(_host["f"], 4 << 20);
        using TwoGuests two = new(_host.Options);
        (DaxGuest first, QemuWindow firstWindow, DaxGuest second, QemuWindow secondWindow) = two;
        NodeId node = first.Lookup("f").NodeId;
        NodeId same = second.Lookup("f").NodeId;
        Assert.Equal(Errno.Success, first.Map(node, 0, 0, 2 * Slot));
        Assert.Equal(Errno.Success, second.Map(same, 0, 0, 2 * Slot));

        // To where a page ends in the middle, and once more within that page.
        foreach (ulong size in new ulong[] { 1_000_000, 999_990 })
        {
            Assert.Equal(Errno.Success, first.Resize(node, size));
            Assert.Equal((long)size, new FileInfo(_host["f"]).Length);
            foreach (QemuWindow window in new[] { firstWindow, secondWindow })
            {
                byte[] page = window.Look(999_424, 4096)!;
                Assert.Equal(DaxGuest.ByteAt(999_424), page[0]);
                Assert.Equal(DaxGuest.ByteAt((long)size - 1), page[(int)size - 999_424 - 1]);
                Assert.Equal(0, page[(int)size - 999_424]);
                Assert.Null(window.Look(1_003_520, 1));

                // Both ranges, while the file had its old size. Within the page there is nothing to unmap.
                Assert.Equal(
                    [(0UL, Slot, 4UL << 20), (Slot, Slot, 4UL << 20)], window.Unmapped.Order());
            }
        }

        HandleId handle = second.Client.Open(same, flags: 0x201).Value.Handle;
        foreach (QemuWindow window in new[] { firstWindow, secondWindow })
        {
            Assert.Equal(0, window.MappingCount);
            Assert.Equal((0UL, 1_003_520UL, 999_990UL), window.Unmapped.Last());
        }

        Assert.Equal(1u, second.Client.Write(same, handle, 0, "x"u8).Value.Size);
        Assert.Equal("x"u8, firstWindow.Look(0, 1)!);
        Assert.Equal("x"u8, secondWindow.Look(0, 1)!);
        Assert.Equal(1, new FileInfo(_host["f"]).Length);
        AssertUnharmed(firstWindow);
        AssertUnharmed(secondWindow);
    }

    [Fact]
    public void A_file_that_could_not_be_cut_off_stays_mapped()
    {
        DaxGuest.WriteFile(_host["f"], 1 << 20);
        using DaxGuest guest = new(_host.Options);
        using QemuWindow window = new(guest.Driver);
        guest.Initialize();
        NodeId node = guest.Lookup("f").NodeId;
        Assert.Equal(Errno.Success, guest.Map(node, 0, flags: ReadWrite));
        window.Store(9, 0x77);
        Host.Run("chattr", "+i", _host["f"]);
        try
        {
            Assert.NotEqual(Errno.Success, guest.Resize(node, 0));
            Assert.Equal(0x77, window.Look(9, 1)![0]);
            Assert.Equal(1 << 20, new FileInfo(_host["f"]).Length);
        }
        finally
        {
            Host.Run("chattr", "-i", _host["f"]);
        }

        AssertUnharmed(window);
    }

    [Fact]
    public void A_hole_needs_no_message_because_the_host_takes_the_pages_from_all()
    {
        DaxGuest.WriteFile(_host["f"], 1 << 20);
        using DaxGuest guest = new(_host.Options);
        using QemuWindow window = new(guest.Driver);
        guest.Initialize();
        NodeId node = guest.Lookup("f").NodeId;
        Assert.Equal(Errno.Success, guest.Map(node, 0, flags: ReadWrite));
        Assert.Equal(DaxGuest.ByteAt(8192), window.Look(8192, 1)![0]);
        int requests = window.Requests;
        Host.Run("fallocate", "--punch-hole", "--offset", "8192", "--length", "4096", _host["f"]);
        Assert.Equal(0, window.Look(8192, 1)![0]);
        window.Store(8193, 0x42);
        Assert.Equal(0x42, File.ReadAllBytes(_host["f"])[8193]);
        Assert.Equal(requests, window.Requests);
    }

    [Fact]
    public void A_hole_that_one_guest_punches_is_one_for_all_without_a_message()
    {
        DaxGuest.WriteFile(_host["f"], 1 << 20);
        using TwoGuests two = new(_host.Options);
        (DaxGuest first, QemuWindow firstWindow, DaxGuest second, QemuWindow secondWindow) = two;
        NodeId node = first.Lookup("f").NodeId;
        Assert.Equal(Errno.Success, first.Map(node, 0, flags: ReadWrite));
        Assert.Equal(Errno.Success, second.Map(second.Lookup("f").NodeId, Slot, flags: ReadWrite));
        Assert.Equal(DaxGuest.ByteAt(8192), firstWindow.Look(8192, 1)![0]);
        Assert.Equal(DaxGuest.ByteAt(8192), secondWindow.Look(Slot + 8192, 1)![0]);

        FuseFallocateIn hole = new()
        {
            Handle = first.Client.Open(node, flags: 2).Value.Handle,
            Offset = 8192,
            Length = 4096,
            Mode = 3, // FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE
        };
        Assert.Equal(Errno.Success, first.Client.Call(
            FuseOpcode.Fallocate, node, MemoryMarshal.AsBytes(new ReadOnlySpan<FuseFallocateIn>(in hole)), 0, out _));

        // The pages are gone from both, the file is as long as it was, and what is stored into the hole is in the file.
        Assert.Equal(new byte[4096], firstWindow.Look(8192, 4096));
        Assert.Equal(new byte[4096], secondWindow.Look(Slot + 8192, 4096));
        Assert.Equal(DaxGuest.ByteAt(12_288), secondWindow.Look(Slot + 12_288, 1)![0]);
        secondWindow.Store(Slot + 8193, 0x42);
        Assert.Equal(0x42, firstWindow.Look(8193, 1)![0]);
        Assert.Equal(0x42, File.ReadAllBytes(_host["f"])[8193]);
        Assert.Equal(1 << 20, new FileInfo(_host["f"]).Length);
        Assert.Empty(firstWindow.Unmapped);
        Assert.Empty(secondWindow.Unmapped);
        AssertUnharmed(firstWindow);
        AssertUnharmed(secondWindow);
    }

    [Fact]
    public void Nobody_is_asked_before_the_device_is_started()
    {
        DaxGuest.WriteFile(_host["f"], 4 << 20);
        using var share = Share.Open(_host.Options);
        using DaxGuest guest = new(share);

        // As when QEMU starts: the channel and the region are there, the guest's driver is not.
        (uint, uint) next = Stop(guest);
        using QemuWindow window = new(guest.Driver) { IsStarted = false };
        using DaxGuest second = new(share);
        using QemuWindow secondWindow = new(second.Driver);
        second.Initialize();
        NodeId node = second.Lookup("f").NodeId;
        Assert.Equal(Errno.Success, second.Map(node, 0, 0, 2 * Slot));
        Assert.Equal(Errno.Success, second.Resize(node, 4096));
        Assert.Equal(Errno.Success, second.Resize(node, 4 << 20));
        Assert.Equal(0, window.Requests);

        window.IsStarted = true;
        Restart(guest, next);
        Assert.Equal(21, guest.Initialize().MapAlignment);
        Assert.Equal(Errno.Success, guest.Map(guest.Lookup("f").NodeId, 0));
        AssertUnharmed(window);
        AssertUnharmed(secondWindow);
    }

    [Fact]
    public void A_window_asks_nothing_before_a_ring_starts_and_after_the_last_one_stops()
    {
        Sockets.Socketpair(SocketType.Stream, out int ours, out int theirs).ThrowIfError("socketpair");
        using SafeFileHandle frontend = new(ours, ownsHandle: true);
        using BackendChannel channel = new(new SafeFileHandle(theirs, ownsHandle: true));
        var window = new DaxWindow(8 * Slot, NullLogger.Instance);
        window.Connect(channel, isRunning: false);
        Assert.False(window.TryBegin());
        Assert.Equal(PollEvents.None, Poll.Now(ours, PollEvents.Readable));

        window.Open();
        window.Close(isLast: true);
        Assert.False(window.TryBegin());
        window.End();
        Assert.Equal(PollEvents.None, Poll.Now(ours, PollEvents.Readable));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_request_under_way_when_the_device_stops_is_none_when_it_is_found_later(bool maps)
    {
        DaxGuest.WriteFile(_host["f"], 4 << 20);
        using DaxGuest guest = new(_host.Options);
        using QemuWindow window = new(guest.Driver);
        guest.Initialize();
        NodeId node = guest.Lookup("f").NodeId;
        Assert.Equal(Errno.Success, guest.Map(node, 0));
        for (int turn = 1; turn <= 20; turn++)
        {
            (uint, uint) next;
            var request = new Thread(() => _ = maps ? guest.Map(node, Slot, Slot) : guest.Unmap((0, Slot)));
            lock (window.MainLoop)
            {
                request.Start();
                DaxTests.Until(() => window.HasUnread);
                next = Stop(guest);
                window.IsStarted = false;
            }

            DaxTests.Until(() => window.UnknownRequests == turn);
            window.IsStarted = true;
            Restart(guest, next);
            request.Join();
            AssertUnharmed(window);

            // What could not be unmapped then is no longer there after the next request, whatever that is about.
            Assert.Equal(Errno.Success, guest.Map(node, 3 * Slot, Slot));
            Assert.Equal(maps ? 2 : 1, window.MappingCount);
            Assert.Equal(Errno.Success, guest.Unmap((3 * Slot, Slot)));
            if (!maps)
            {
                Assert.Equal(Errno.Success, guest.Map(node, 0));
            }
        }

        Assert.Equal(Errno.Success, guest.Map(node, Slot, Slot));
        Assert.Equal(DaxGuest.ByteAt(2 << 20), window.Look(Slot, 1)![0]);
        AssertUnharmed(window);
    }

    [Fact]
    public void What_could_not_be_unmapped_before_a_pause_is_not_taken_for_memory_after_it()
    {
        DaxGuest.WriteFile(_host["f"], 4 << 20);
        using DaxGuest guest = new(_host.Options);
        using QemuWindow window = new(guest.Driver);
        guest.Initialize();
        Assert.Equal(Errno.Success, guest.Map(guest.Lookup("f").NodeId, 0, Slot));
        var request = new Thread(() => guest.Unmap((0, Slot)));
        lock (window.MainLoop)
        {
            request.Start();
            DaxTests.Until(() => window.HasUnread);
            _ = Stop(guest);
            window.IsStarted = false;
        }

        request.Join();
        Assert.Equal(1, window.MappingCount);
        int before = CountMappings();

        // QEMU shows all its memory again before it starts the rings.
        using SafeFileHandle file = File.OpenHandle(
            _host["f"], System.IO.FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
        guest.Driver.Frontend.SetMemoryTable(new FrontendRegion(
            new GuestMemoryRange(new(0xe000_0000), new(0x7f34_0000_0000), Slot, Slot), file));
        Assert.Equal(before, CountMappings());

        int CountMappings() => File.ReadLines("/proc/self/maps").Count(line => line.EndsWith(_host["f"], StringComparison.Ordinal));
    }

    [Fact]
    public void Nobody_is_asked_while_the_device_is_stopped_and_a_pause_keeps_the_mappings()
    {
        DaxGuest.WriteFile(_host["f"], 4 << 20);
        DaxGuest.WriteFile(_host["other"], 4 << 20);
        using TwoGuests two = new(_host.Options);
        (DaxGuest guest, QemuWindow window, DaxGuest second, QemuWindow secondWindow) = two;
        NodeId node = guest.Lookup("f").NodeId;
        Assert.Equal(Errno.Success, guest.Map(node, 0));

        (uint, uint) next = Stop(guest);
        window.IsStarted = false;
        int requests = window.Requests;

        // What others do meanwhile, with the same file and with another one.
        NodeId same = second.Lookup("f").NodeId;
        Assert.Equal(Errno.Success, second.Map(same, 0));
        Assert.Equal(Errno.Success, second.Resize(same, 6 << 20));
        Assert.Equal(Errno.Success, second.Resize(second.Lookup("other").NodeId, 4096));
        Assert.Equal(requests, window.Requests);
        window.IsStarted = true;
        Restart(guest, next);

        Assert.Equal(DaxGuest.ByteAt(3), window.Look(3, 1)![0]);
        Assert.Equal(Errno.Success, guest.Map(node, Slot, Slot));
        Assert.Equal(Errno.Success, guest.Unmap((0, Slot)));
        Assert.Equal(1, window.MappingCount);
        Assert.Equal(requests + 2, window.Requests);
        AssertUnharmed(window);
    }

    [Fact]
    public void After_a_reset_with_mappings_the_same_places_are_used_again()
    {
        DaxGuest.WriteFile(_host["f"], 4 << 20);
        using DaxGuest guest = new(_host.Options);
        using QemuWindow window = new(guest.Driver);
        for (int cycle = 0; cycle < 3; cycle++)
        {
            guest.Initialize();
            NodeId node = guest.Lookup("f").NodeId;
            Assert.Equal(Errno.Success, guest.Map(node, 0, 0, 2 * Slot));
            Assert.Equal(2, window.MappingCount);

            (uint, uint) next = Stop(guest);
            window.IsStarted = false;
            window.Reset();
            guest.Driver.Frontend.ResetDevice();
            Assert.True(guest.Share.MappedFiles.IsEmpty);
            window.IsStarted = true;
            Restart(guest, next);
        }

        AssertUnharmed(window);
    }

    [Fact]
    public void A_front_end_that_keeps_its_mappings_over_a_reset_is_asked_to_end_them()
    {
        DaxGuest.WriteFile(_host["f"], 4 << 20);
        using DaxGuest guest = new(_host.Options);
        using QemuWindow window = new(guest.Driver);
        guest.Initialize();
        Assert.Equal(Errno.Success, guest.Map(guest.Lookup("f").NodeId, 0, Slot));
        (uint, uint) next = Stop(guest);
        guest.Driver.Frontend.ResetDevice();
        Restart(guest, next);
        guest.Initialize();
        Assert.Equal(Errno.Success, guest.Map(guest.Lookup("f").NodeId, 0, 0));
        Assert.Equal(DaxGuest.ByteAt(0), window.Look(0, 1)![0]);
        Assert.Equal(1, window.MappingCount);
    }

    [Fact]
    public void A_thousand_mappings_come_and_go_and_leave_nothing()
    {
        DaxGuest.WriteFile(_host["f"], 32 << 20);
        using DaxGuest guest = new(_host.Options);
        using QemuWindow window = new(guest.Driver);
        guest.Initialize(always: true);
        NodeId node = guest.Lookup("f").NodeId;
        int descriptors = _host.OpenDescriptors().Count;
        for (ulong cycle = 0; cycle < 1000; cycle++)
        {
            Assert.Equal(Errno.Success, guest.Map(node, cycle % 8 * Slot, cycle % 16 * Slot));
            Assert.Equal(Errno.Success, guest.Unmap((cycle % 8 * Slot, Slot)));
        }

        Assert.Equal(0, window.MappingCount);
        Assert.True(guest.Share.MappedFiles.IsEmpty);
        Assert.Equal(descriptors, _host.OpenDescriptors().Count);
        AssertUnharmed(window);
    }

    [Fact]
    public void More_mappings_than_QEMU_has_memory_slots_are_possible_because_they_take_none()
    {
        const int slots = 1024;
        using (FileStream file = File.Create(_host["f"]))
        {
            file.SetLength(slots * (long)Slot);
        }

        using DaxGuest guest = new(_host.Options, slots * Slot);
        using QemuWindow window = new(guest.Driver);
        guest.Initialize(always: true);
        NodeId node = guest.Lookup("f").NodeId;
        for (ulong i = 0; i < slots; i++)
        {
            Assert.Equal(Errno.Success, guest.Map(node, i * Slot, i * Slot));
        }

        // The window is full: whatever comes now takes the place of something.
        Assert.Equal(slots, window.MappingCount);
        for (ulong i = 0; i < slots; i += 100)
        {
            Assert.Equal(Errno.Success, guest.Map(node, i * Slot, (i + 1) % slots * Slot));
        }

        Assert.Equal(Errno.EINVAL, guest.Map(node, slots * Slot));
        Assert.Equal(slots, window.MappingCount);
        Assert.False(guest.Driver.Frontend.GetProtocolFeatures().HasFlag(VhostUserProtocolFeatures.ConfigureMemorySlots));
        AssertUnharmed(window);
    }

    [Fact]
    public void A_guest_cannot_cut_off_what_a_paused_one_has_mapped_and_can_when_that_goes_on()
    {
        DaxGuest.WriteFile(_host["f"], 4 << 20);
        using TwoGuests two = new(_host.Options);
        (DaxGuest guest, QemuWindow window, DaxGuest second, QemuWindow secondWindow) = two;
        Assert.Equal(Errno.Success, guest.Map(guest.Lookup("f").NodeId, 0, Slot));
        NodeId same = second.Lookup("f").NodeId;

        (uint, uint) next = Stop(guest);
        window.IsStarted = false;
        Assert.Equal(Errno.EIO, second.Resize(same, 4096));
        Assert.True(second.Client.Open(same, flags: 0x201).IsError);
        Assert.Equal(4 << 20, new FileInfo(_host["f"]).Length);
        Assert.Equal(DaxGuest.ByteAt(2 << 20), window.Look(0, 1)![0]);

        window.IsStarted = true;
        Restart(guest, next);
        Assert.Equal(Errno.Success, second.Resize(same, 4096));
        Assert.Equal(0, window.MappingCount);
        Assert.Equal(4096, new FileInfo(_host["f"]).Length);
        AssertUnharmed(window);
    }

    public void Dispose() => _host.Dispose();

    private static (uint High, uint Request) Stop(DaxGuest guest) =>
        (guest.Driver.Frontend.StopRing(0), guest.Driver.Frontend.StopRing(1));

    private static void Restart(DaxGuest guest, (uint High, uint Request) next)
    {
        guest.Driver.RestartQueue(0, next.High);
        guest.Driver.RestartQueue(1, next.Request);
    }

    private static void AssertUnharmed(QemuWindow window) => Assert.Empty(window.Crashes);

    /// <summary>Two guests of one share, each with a window of QEMU's.</summary>
    private sealed class TwoGuests : IDisposable
    {
        private readonly Share _share;
        private readonly DaxGuest _first;
        private readonly QemuWindow _firstWindow;
        private readonly DaxGuest _second;
        private readonly QemuWindow _secondWindow;

        public TwoGuests(PassthroughOptions options)
        {
            _share = Share.Open(options);
            _first = new DaxGuest(_share);
            _firstWindow = new QemuWindow(_first.Driver);
            _first.Initialize();
            _second = new DaxGuest(_share);
            _secondWindow = new QemuWindow(_second.Driver);
            _second.Initialize();
        }

        public void Deconstruct(
            out DaxGuest first, out QemuWindow firstWindow, out DaxGuest second, out QemuWindow secondWindow) =>
            (first, firstWindow, second, secondWindow) = (_first, _firstWindow, _second, _secondWindow);

        public void Dispose()
        {
            _secondWindow.Dispose();
            _second.Dispose();
            _firstWindow.Dispose();
            _first.Dispose();
            _share.Dispose();
        }
    }
}
