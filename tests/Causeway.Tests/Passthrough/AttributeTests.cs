using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Tests.Fuse;

namespace Causeway.Tests.Passthrough;

/// <summary>passthrough.md 7.8.</summary>
public sealed class AttributeTests
{
    [Theory, EveryMode]
    public void Sizes_are_set_on_files_only(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        (string Name, ulong Size, Errno Expected)[] cases =
        [
            ("d", 0, Errno.EISDIR), ("fifo", 0, Errno.EBADF), ("chr", 0, Errno.EBADF), ("ln", 0, Errno.EBADF),
            ("f", 1UL << 63, Errno.EINVAL), ("f", ulong.MaxValue, Errno.EINVAL), ("f", 100, Errno.Success),
        ];
        foreach ((string name, ulong size, Errno expected) in cases)
        {
            Assert.Equal(expected, guest.SetAttr(
                guest.Walk(name).NodeId, new FuseSetAttrIn { Valid = SetAttrValid.Size, Size = size }).Error);
        }

        NodeId file = guest.Walk("f").NodeId;
        Assert.Equal(100UL, Guest.Good(guest.GetAttr(file)).Attributes.Size);
        HandleId handle = Guest.Good(guest.Open(file, OpenFlags.ReadWrite)).Handle;
        Assert.Equal(7UL, Guest.Good(guest.SetAttr(file, new FuseSetAttrIn
        {
            Valid = SetAttrValid.Size | SetAttrValid.Handle,
            Size = 7,
            Handle = handle,
        })).Attributes.Size);
        Assert.Equal(Errno.Success, guest.Release(file, handle));
    });

    [Theory, EveryMode]
    public void Links_have_owner_and_times_but_no_mode_of_their_own(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory(place).Fill();
            using var guest = new Guest(host.Options with { FileHandles = handles });
            string target = Host.Run("stat", "-c", "%a %u %Y", host["f"]);
            NodeId link = guest.Walk("ln").NodeId;
            Assert.Equal(
                Errno.EOPNOTSUPP,
                guest.SetAttr(link, new FuseSetAttrIn { Valid = SetAttrValid.Mode, Mode = 0x1ff }).Error);
            Assert.Equal(12U, Guest.Good(guest.SetAttr(
                link, new FuseSetAttrIn { Valid = SetAttrValid.UserId, UserId = 12 })).Attributes.UserId);
            Assert.Equal(99UL, Guest.Good(guest.SetAttr(
                link,
                new FuseSetAttrIn { Valid = SetAttrValid.ModificationTime, ModificationTime = 99 }))
                .Attributes.ModificationTime);
            Assert.Equal(target, Host.Run("stat", "-c", "%a %u %Y", host["f"]));
        });

    [Theory, EveryMode]
    public void Times_are_exact_before_1970_too_and_checked(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        NodeId file = guest.Walk("f").NodeId;
        FuseAttributes set = Guest.Good(guest.SetAttr(file, new FuseSetAttrIn
        {
            Valid = SetAttrValid.AccessTime | SetAttrValid.ModificationTime,
            AccessTime = unchecked((ulong)-1_000_000L),
            AccessTimeNanoseconds = 5,
            ModificationTime = 1_000_000_000,
            ModificationTimeNanoseconds = 999_999_999,
        })).Attributes;
        Assert.Equal((unchecked((ulong)-1_000_000L), 5U), (set.AccessTime, set.AccessTimeNanoseconds));
        Assert.Equal((1_000_000_000UL, 999_999_999U), (set.ModificationTime, set.ModificationTimeNanoseconds));
        foreach (uint wrong in new uint[] { 2_000_000_000, 0x3fffffff, 0x3ffffffe, uint.MaxValue })
        {
            Assert.Equal(Errno.EINVAL, guest.SetAttr(
                file,
                new FuseSetAttrIn { Valid = SetAttrValid.ModificationTime, ModificationTimeNanoseconds = wrong }).Error);
        }

        FuseAttributes now = Guest.Good(guest.SetAttr(
            file,
            new FuseSetAttrIn { Valid = SetAttrValid.ModificationTime | SetAttrValid.ModificationTimeNow })).Attributes;
        Assert.True(now.ModificationTime > 1_700_000_000);
        Assert.Equal(unchecked((ulong)-1_000_000L), now.AccessTime);
    });

    [Theory, EveryMode]
    public void Each_step_stays_done_when_a_later_one_fails(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        NodeId file = guest.Walk("f").NodeId;
        FuseAttributes before = Guest.Good(guest.SetAttr(file, default)).Attributes;
        Assert.Equal(8192UL, before.Size);
        Assert.Equal(Errno.EINVAL, guest.SetAttr(
            file,
            new FuseSetAttrIn { Valid = SetAttrValid.Mode | SetAttrValid.Size, Mode = 0x100, Size = 1UL << 63 }).Error);
        Assert.Equal(0x8100U, Guest.Good(guest.GetAttr(file)).Attributes.Mode);
    });

    [Theory, EveryMode]
    public void Setuid_goes_with_chown_and_with_writes_that_say_so(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory(place).Fill();
            using var guest = new Guest(host.Options with { FileHandles = handles, KillPrivV2 = true });
            NodeId file = guest.Walk("f").NodeId;
            SetMode();
            FuseAttributes owned = Guest.Good(guest.SetAttr(
                file, new FuseSetAttrIn { Valid = SetAttrValid.UserId, UserId = 7 })).Attributes;
            Assert.Equal(0x81ffU, owned.Mode);

            // What Linux makes of a chown that changes neither id.
            SetMode();
            Assert.Equal(0x81ffU, Guest.Good(guest.SetAttr(file, default)).Attributes.Mode);
            SetMode();
            Assert.Equal(0x81ffU, Guest.Good(guest.SetAttr(
                file, new FuseSetAttrIn { Valid = SetAttrValid.ChangeTime })).Attributes.Mode);

            SetMode();
            HandleId handle = Guest.Good(guest.Open(file, OpenFlags.ReadWrite)).Handle;
            Assert.Equal(1, Guest.Good(guest.Write(file, handle, 0, "x"u8)));
            Assert.Equal(0x8dffU, Mode());
            Assert.Equal(1, Guest.Good(guest.Write(file, handle, 0, "x"u8, 0, FuseWriteFlags.KillSuidGid)));
            Assert.Equal(0x81ffU, Mode());

            SetMode();
            const SetAttrValid kill = SetAttrValid.Size | SetAttrValid.KillSuidGid;
            Assert.Equal(0x81ffU, Guest.Good(guest.SetAttr(
                file, new FuseSetAttrIn { Valid = kill, Size = 4 })).Attributes.Mode);
            SetMode();
            HandleId truncated = Guest.Good(guest.Open(
                file, OpenFlags.ReadWrite | OpenFlags.Truncate, FuseOpenInFlags.KillSuidGid)).Handle;
            Assert.Equal(0x81ffU, Mode());
            SetMode();
            Assert.Equal(0x10UL, 0x10 & Convert.ToUInt64(CreateTests.StatusOfThisThread("CapEff"), 16));
            Assert.Equal(Errno.Success, guest.Release(file, handle));
            Assert.Equal(Errno.Success, guest.Release(file, truncated));

            void SetMode() => Assert.Equal(0x8dffU, Guest.Good(guest.SetAttr(
                file, new FuseSetAttrIn { Valid = SetAttrValid.Mode, Mode = 0xdff })).Attributes.Mode);

            uint Mode() => Guest.Good(guest.GetAttr(file)).Attributes.Mode;
        });

    [Fact]
    public void Setuid_goes_with_what_is_allocated_and_copied_where_the_guest_leaves_that_to_the_host() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        foreach (bool isLeft in new[] { true, false })
        {
            using var guest = new Guest(host.Options with { KillPrivV2 = isLeft });
            NodeId file = guest.Walk("f").NodeId;
            HandleId handle = Guest.Good(guest.Open(file, OpenFlags.ReadWrite)).Handle;
            foreach (uint user in new uint[] { 0, 1000, uint.MaxValue })
            {
                uint expected = isLeft ? 0x81ffU : 0x8dffU;
                SetMode(guest, file);
                guest.As(user, user);
                Assert.Equal(Errno.Success, Guest.Done(guest.FileSystem.FallocateAsync(
                    file, new FuseFallocateIn { Handle = handle, Length = 4096 }, guest.Context)));
                Assert.Equal((user, expected), (user, Mode(guest, file)));
                SetMode(guest, file);
                Assert.Equal(100UL, Guest.Good(Guest.Done(guest.FileSystem.CopyFileRangeAsync(
                    file,
                    new FuseCopyFileRangeIn
                    {
                        SourceHandle = handle,
                        DestinationNode = file,
                        DestinationHandle = handle,
                        DestinationOffset = 4096,
                        Length = 100,
                    },
                    guest.Context))));
                Assert.Equal((user, expected), (user, Mode(guest, file)));
            }

            Assert.Equal(Errno.Success, guest.Release(file, handle));
        }
    });

    [Theory]
    [InlineData(false, false, null, false, false)]
    [InlineData(true, false, null, false, true)]
    [InlineData(false, true, null, false, true)]
    [InlineData(true, true, false, false, false)]
    [InlineData(false, false, true, false, true)]
    // What goes into a window is no WRITE with which the host could clear anything.
    [InlineData(true, false, null, true, false)]
    [InlineData(true, false, true, true, false)]
    public void Setuid_is_left_to_the_host_where_that_saves_requests(
        bool hasXattrs, bool hasLists, bool? isAsked, bool hasWindow, bool isExpected) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using Share share = Share.Open(host.Options with
        {
            Xattr = hasXattrs,
            PosixAcl = hasLists ? NegotiationMode.Auto : NegotiationMode.Never,
            KillPrivV2 = isAsked,
        });
        foreach (FuseFeatures missing in new[] { FuseFeatures.None, FuseFeatures.HandleKillPrivV2 })
        {
            var logger = new RecordingLogger();
            using var system = new PassthroughFileSystem(share, logger);
            var negotiation = new FuseNegotiation(46, Guest.Everything & ~missing)
            {
                Window = hasWindow ? new NoWindow() : null,
            };
            Assert.Equal(Errno.Success, Guest.Done(system.InitializeAsync(negotiation)));
            bool isGranted = isExpected && missing == FuseFeatures.None;
            Assert.Equal(isGranted, (negotiation.Granted & FuseFeatures.HandleKillPrivV2) != 0);
            // The operator hears of what was asked for and is not, and of nothing else.
            Assert.Equal(isAsked == true && !isGranted ? 1 : 0, logger.Entries.Count);
        }
    });

    /// <summary>A window in which nothing is ever mapped.</summary>
    private sealed class NoWindow : IDaxWindow
    {
        public ulong Size => IDaxWindow.SlotSize;

        public bool NeedsWholePages => false;

        public bool TryBegin() => true;

        public void End()
        {
        }

        public Errno Map(MappableFile file, in FuseSetupMappingIn range, ulong limit) => Errno.EOPNOTSUPP;

        public Errno Unmap(ulong offset, ulong length) => Errno.EINVAL;

        public ulong Extend(MappableFile file, ulong end, ulong limit, out bool isComplete)
        {
            isComplete = true;
            return end;
        }

        public bool Shrink(MappableFile file, ulong end) => true;
    }

    [Theory, EveryMode]
    public void Setuid_goes_when_CREATE_truncates_and_says_so(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        // A10, and what must not be remembered from one request to the next (A11).
        using HostDirectory host = new HostDirectory(place).Fill();
        foreach (bool isNegotiated in new[] { true, false })
        {
            using var guest = new Guest(host.Options with { FileHandles = handles, KillPrivV2 = isNegotiated });
            NodeId file = guest.Walk("f").NodeId;
            SetMode(guest, file);
            const int truncate = OpenFlags.ReadWrite | OpenFlags.Truncate;
            const FuseOpenInFlags kill = FuseOpenInFlags.KillSuidGid;
            // Without the feature there is no flag, and a Linux guest does not do it by itself.
            Create(0, truncate, FuseOpenInFlags.None, 0x8dff);
            Create(0, OpenFlags.ReadWrite, kill, 0x8dff);
            Create(1000, OpenFlags.ReadWrite, kill, 0x8dff);
            Create(1000, truncate, FuseOpenInFlags.None, isNegotiated ? 0x8dffU : 0x81ffU);
            SetMode(guest, file);
            Create(1000, truncate, kill, 0x81ff);
            SetMode(guest, file);
            // One that is about to make a file for a user who may not keep setgid does not decide for the next.
            Create(0, truncate, FuseOpenInFlags.None, 0x8dff);

            void Create(uint user, int flags, FuseOpenInFlags openFlags, uint expected)
            {
                guest.As(user, user);
                FuseCreateOut opened = Guest.Good(guest.Create(NodeId.Root, "f", flags, 0x5ed, openFlags: openFlags));
                Assert.Equal(Errno.Success, guest.Release(file, opened.Open.Handle));
                Assert.Equal(expected, Mode(guest, file));
            }
        }
    });

    [Theory, EveryMode]
    public void Setuid_is_the_guests_business_when_nothing_was_negotiated(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        NodeId file = guest.Walk("f").NodeId;
        SetMode(guest, file);
        const int truncate = OpenFlags.ReadWrite | OpenFlags.Truncate;
        HandleId handle = Guest.Good(guest.As(0, 0).Open(file, truncate, FuseOpenInFlags.KillSuidGid)).Handle;
        guest.As(1000, 1000);
        Assert.Equal(1, Guest.Good(guest.Write(file, handle, 0, "x"u8, 0, FuseWriteFlags.KillSuidGid)));
        Assert.Equal(0x8dffU, Guest.Good(guest.SetAttr(
            file, new FuseSetAttrIn { Valid = SetAttrValid.Size | SetAttrValid.KillSuidGid, Size = 4 })).Attributes.Mode);
        Assert.Equal(Errno.Success, guest.Release(file, handle));

        // Only of O_TRUNC the guest takes no care. One that does not say who asks may be root.
        handle = Guest.Good(guest.As(uint.MaxValue, uint.MaxValue).Open(file, truncate)).Handle;
        Assert.Equal(0x8dffU, Mode(guest, file));
        Assert.Equal(Errno.Success, guest.Release(file, handle));
        guest.As(1000, 1000);
        handle = Guest.Good(guest.Open(file, truncate)).Handle;
        Assert.Equal(0x81ffU, Mode(guest, file));
        Assert.Equal(Errno.Success, guest.Release(file, handle));
    });

    private static void SetMode(Guest guest, NodeId file) => Assert.Equal(0x8dffU, Guest.Good(guest.SetAttr(
        file, new FuseSetAttrIn { Valid = SetAttrValid.Mode, Mode = 0xdff })).Attributes.Mode);

    private static uint Mode(Guest guest, NodeId file) => Guest.Good(guest.GetAttr(file)).Attributes.Mode;

    [Fact]
    public void Statx_tells_the_time_of_birth() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        using var guest = new Guest(host.Options);
        NodeId file = guest.Walk("f").NodeId;
        FuseStatxOut reply = Guest.Good(Guest.Done(guest.FileSystem.StatxAsync(
            file, new FuseStatxIn { Mask = uint.MaxValue, SyncFlags = uint.MaxValue }, guest.Context)));
        Assert.Equal(0xfffU, reply.Statx.Mask);
        Assert.Equal(
            Host.Run("stat", "-c", "%W %s %i", host["f"]).Trim(),
            $"{reply.Statx.BirthTime.Seconds} {reply.Statx.Size} {reply.Statx.Inode}");
    });

    [Fact]
    public void Access_goes_by_mode_owner_and_group() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        Host.Run("chown", "1000:50", host["f"]);
        Host.Run("chmod", "0640", host["f"]);
        using var guest = new Guest(host.Options);
        NodeId file = guest.Walk("f").NodeId;
        Errno Access(uint mask) => Guest.Done(guest.FileSystem.AccessAsync(file, mask, guest.Context));
        guest.As(1000, 1);
        Assert.Equal((Errno.Success, Errno.EACCES), (Access(6), Access(1)));
        guest.As(1001, 50);
        Assert.Equal((Errno.Success, Errno.EACCES), (Access(4), Access(2)));
        guest.As(1001, 1, 50);
        Assert.Equal((Errno.Success, Errno.EACCES), (Access(4), Access(2)));
        guest.As(1001, 1);
        Assert.Equal((Errno.Success, Errno.EACCES), (Access(0), Access(4)));
        guest.As(0, 0);
        Assert.Equal((Errno.Success, Errno.EACCES), (Access(6), Access(1)));
        Assert.Equal(Errno.EINVAL, Access(8));
    });
}
