using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Tests.Passthrough;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Coherency;

/// <summary>What a guest cannot do to the version table, and to the guests beside it.</summary>
public sealed unsafe class HostileVersionsTests
{
    private static readonly VersionTableLayout s_layout = new(64, 64, 16, 16);

    [Fact]
    public void Who_has_the_descriptor_can_neither_write_the_table_nor_change_its_size_nor_unseal_it()
    {
        using VersionTable table = VersionTable.Create(s_layout);
        uint word = VersionTable.WordOfSlot(3);
        ulong value = table.ReadVersion(word);
        long size = (long)s_layout.RegionSize;

        // What a front end gets, and what somebody with more rights than that makes of it.
        foreach (SafeFileHandle file in (SafeFileHandle[])[Reopen(table, OpenFlags.ReadOnly), Reopen(table, OpenFlags.ReadWrite)])
        {
            using (file)
            {
                int descriptor = (int)file.DangerousGetHandle();
                Assert.Throws<ErrnoException>(() => MemoryMapping.MapShared(
                    file, 0, s_layout.RegionSize, MemoryProtection.Read | MemoryProtection.Write).Dispose());
                Assert.ThrowsAny<SystemException>(() => RandomAccess.Write(file, new byte[8], word * sizeof(ulong)));
                Assert.True(Files.Ftruncate(descriptor, 0).IsError);
                Assert.True(Files.Ftruncate(descriptor, 2 * size).IsError);
                const int punchHole = 3;
                Assert.True(Files.Fallocate(descriptor, punchHole, 0, size).IsError);
                Assert.Equal(Errno.EPERM, Memory.AddSeals(descriptor, FileSeals.Write).Error);

                using MemoryMapping memory = MemoryMapping.MapShared(file, 0, s_layout.RegionSize, MemoryProtection.Read);
                Assert.Equal(
                    Errno.EACCES,
                    Memory.Mprotect(memory.Address, (nuint)size, MemoryProtection.Read | MemoryProtection.Write).Error);
                Assert.Equal(value, ((ulong*)memory.Address)[word]);
            }
        }

        // It works all the same.
        table.Advance(word);
        Assert.Equal(value + VersionWord.Step, table.Read(word));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_guest_that_looks_up_and_opens_all_it_can_leaves_the_others_words_of_their_own(bool forgets) => Worker.Run(() =>
    {
        using var host = new HostDirectory();
        using Share share = Share.Open(host.Options with { VersionTable = s_layout, MaxSessions = 2 });
        using Guest hoarder = Guest.On(share);
        using Guest other = Guest.On(share);
        int part = s_layout.Inodes / 2;
        int own = 0;
        for (int i = 0; i < 4 * s_layout.Inodes; i++)
        {
            File.WriteAllText(host[$"h{i}"], "");
            NodeId node = Guest.Good(hoarder.Versioned().Lookup(NodeId.Root, $"h{i}")).NodeId;
            own += HasOwn(hoarder) ? 1 : 0;
            if (forgets)
            {
                HandleId handle = Guest.Good(hoarder.Open(node)).Handle;
                Guest.Good(hoarder.Versioned().Read(node, handle, 0, 1));
                hoarder.Forget(node);
            }
        }

        Assert.InRange(own, 1, part);

        // Two for each open file: its node's until that is forgotten, and its own. And one is the root's, in common.
        for (int i = 0; i < part - 2; i++)
        {
            File.WriteAllText(host[$"o{i}"], "");
            Guest.Good(other.Versioned().Lookup(NodeId.Root, $"o{i}"));
            Assert.True(HasOwn(other), $"object {i} of {part}");
        }
    });

    [Fact]
    public void What_a_hoarder_has_is_free_again_when_it_is_gone() => Worker.Run(() =>
    {
        using var host = new HostDirectory();
        using Share share = Share.Open(host.Options with { VersionTable = s_layout });
        int used;
        using (Guest hoarder = Guest.On(share))
        {
            for (int i = 0; i < 2 * s_layout.Inodes; i++)
            {
                File.WriteAllText(host[$"h{i}"], "");
                Guest.Good(hoarder.Open(Guest.Good(hoarder.Versioned().Lookup(NodeId.Root, $"h{i}")).NodeId));
            }

            used = share.Versions!.Count;
        }

        Assert.True(used > s_layout.Inodes);
        Assert.Equal(0, share.Versions.Count);
        Assert.Equal(0UL, share.Versions.Table.Read(VersionTableLayout.StatisticsWord + (uint)VersionStatistic.SlotsUsed));
    });

    private static bool HasOwn(Guest guest) => (guest.Context.Versions.Flags & FuseVersionFlags.SharedWords) == 0;

    private static SafeFileHandle Reopen(VersionTable table, int flags) => new(
        Files.Openat(
            Files.WorkingDirectory,
            System.Text.Encoding.ASCII.GetBytes($"/proc/self/fd/{table.Descriptor}\0"),
            flags | OpenFlags.CloseOnExec).ThrowIfError("open the table again").Descriptor,
        ownsHandle: true);
}
