using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Tests.Passthrough;
using Causeway.VhostUser.Frontend;
using CsCheck;

namespace Causeway.Tests.Server;

/// <summary>
/// Any sequence of SETUPMAPPING and REMOVEMAPPING, sensible or not, beside a model of one line per slot: the same errors, the same
/// pages in the window, and files that stay as they are.
/// </summary>
public sealed class DaxPropertyTests : IDisposable
{
    private const ulong Slot = DaxGuest.Slot;
    private const int Slots = 4;
    private const int Sequences = 150;

    // The end of a file may be within a slot, or within a page, and there is nothing in an empty one.
    private static readonly int[] s_sizes = [(int)(2 * Slot), (int)Slot + 12_345, 4096, 0];

    // Mostly what makes sense.
    private static readonly Gen<ulong> s_offset = Gen.Frequency(
        (12, Gen.Int[0, Slots].Select(slot => (ulong)slot * Slot)),
        (1, Gen.OneOf<ulong>(1UL, 4096, Slot - 4096, Slot + 4096, 1UL << 63, ulong.MaxValue - Slot + 1, ulong.MaxValue)));

    private static readonly Gen<ulong> s_length = Gen.Frequency(
        (12, Gen.Int[1, Slots].Select(slots => (ulong)slots * Slot)),
        (2, Gen.OneOf<ulong>(0UL, 1, 4096, Slot - 1, Slot + 4096, 1UL << 63, ulong.MaxValue - Slot + 1)));

    private static readonly Gen<ulong> s_flags = Gen.Frequency((10, Gen.OneOf<ulong>(1UL, 2, 3)), (1, Gen.OneOf<ulong>(0UL, 4, 7, ulong.MaxValue)));

    private static readonly Gen<Step> s_step = Gen.Frequency(
        (4, Gen.Select(Gen.Int[0, s_sizes.Length - 1], s_offset, s_offset, s_length, s_flags, Step.Setup)),
        (2, Gen.Select(s_offset, s_length).Array[0, 3].Select(Step.Remove)),
        (1, Gen.Const(Step.Remove([(0, ulong.MaxValue)]))));

    private readonly HostDirectory _host = new();

    [Fact]
    public void Any_sequence_of_mappings_does_what_the_model_does()
    {
        for (int i = 0; i < s_sizes.Length; i++)
        {
            DaxGuest.WriteFile(_host[$"f{i}"], s_sizes[i]);
        }

        using DaxGuest guest = new(_host.Options, Slots * Slot);
        using SharedMemoryRegion region = Assert.IsType<SharedMemoryRegion>(guest.Driver.Frontend.OpenSharedMemory());
        _ = guest.Driver.Frontend.GetFeatures();
        s_step.Array[1, 12].Sample(steps => Run(guest, region, steps), iter: Sequences, threads: 1);

        for (int i = 0; i < s_sizes.Length; i++)
        {
            byte[] bytes = File.ReadAllBytes(_host[$"f{i}"]);
            Assert.Equal(s_sizes[i], bytes.Length);
            Assert.All(Enumerable.Range(0, bytes.Length / 1000), k => Assert.Equal(DaxGuest.ByteAt(k * 1000), bytes[k * 1000]));
        }
    }

    public void Dispose() => _host.Dispose();

    private static void Run(DaxGuest guest, SharedMemoryRegion region, Step[] steps)
    {
        // A new session: whatever was mapped is not any more.
        guest.Initialize(always: true);
        NodeId[] nodes = [.. Enumerable.Range(0, s_sizes.Length).Select(i => guest.Lookup($"f{i}").NodeId)];
        var model = new (int File, ulong Offset)?[Slots];
        foreach (Step step in steps)
        {
            Errno expected = Apply(model, step);
            Errno answer = step.File is { } file
                ? guest.Map(nodes[file], step.WindowOffset, step.FileOffset, step.Length, (FuseMappingFlags)step.Flags)
                : guest.Unmap(step.Ranges);
            Assert.Equal(expected, answer);
            Assert.Equal(model.Count(slot => slot is not null), region.MappingCount);
            for (int slot = 0; slot < Slots; slot++)
            {
                AssertShows(region, slot, model[slot]);
            }
        }

        Assert.Equal(model.OfType<(int File, ulong)>().Select(slot => slot.File).Distinct().Count(), guest.Share.MappedFiles.Count);
    }

    private static Errno Apply((int File, ulong Offset)?[] model, Step step)
    {
        if (step.File is { } file)
        {
            if (!IsSensible(step.WindowOffset, step.Length) || step.FileOffset % Slot != 0
                || step.FileOffset > long.MaxValue - step.Length || step.Flags is 0 or > 3)
            {
                return Errno.EINVAL;
            }

            for (ulong i = 0; i < step.Length / Slot; i++)
            {
                model[(step.WindowOffset / Slot) + i] = (file, step.FileOffset + (i * Slot));
            }

            return Errno.Success;
        }

        if (step.Ranges.Any(range => range.Length != ulong.MaxValue && !IsSensible(range.Offset, range.Length)))
        {
            return Errno.EINVAL;
        }

        foreach ((ulong offset, ulong length) in step.Ranges)
        {
            bool isAll = length == ulong.MaxValue;
            Array.Clear(model, isAll ? 0 : (int)(offset / Slot), isAll ? Slots : (int)(length / Slot));
        }

        return Errno.Success;
    }

    private static bool IsSensible(ulong offset, ulong length) =>
        offset % Slot == 0 && length % Slot == 0 && length != 0 && offset < Slots * Slot && length <= (Slots * Slot) - offset;

    private static unsafe void AssertShows(SharedMemoryRegion region, int slot, (int File, ulong Offset)? mapped)
    {
        if (mapped is not { } part)
        {
            return;
        }

        ulong end = Math.Min((ulong)s_sizes[part.File], part.Offset + Slot);
        for (ulong at = part.Offset; at < end; at += 65_521)
        {
            Assert.Equal(DaxGuest.ByteAt((long)at), region.Address[((ulong)slot * Slot) + at - part.Offset]);
        }
    }

    /// <summary>One request.</summary>
    private sealed record Step(
        int? File, ulong WindowOffset, ulong FileOffset, ulong Length, ulong Flags, (ulong Offset, ulong Length)[] Ranges)
    {
        public static Step Setup(int file, ulong windowOffset, ulong fileOffset, ulong length, ulong flags) =>
            new(file, windowOffset, fileOffset, length, flags, []);

        public static Step Remove((ulong Offset, ulong Length)[] ranges) => new(null, 0, 0, 0, 0, ranges);
    }
}
