using System.Globalization;
using Causeway.Linux;
using Causeway.Tests.Virtio;
using Causeway.Virtio;

namespace Causeway.Fuzz.Targets;

/// <summary>A chain as a guest once made it; the addresses are ours.</summary>
/// <param name="IsIndirect">Whether it was a table.</param>
/// <param name="Buffers">Its buffers.</param>
internal sealed record RecordedChain(bool IsIndirect, IReadOnlyList<(GuestRange Range, bool IsWritable)> Buffers);

/// <summary>What the targets of both kinds of rings do with chains, and hold them to.</summary>
internal static unsafe class ChainMemory
{
    /// <summary>Where the table for indirect descriptors is, from the start of the guest's memory.</summary>
    public const ulong TableOffset = 0x8000;

    private const ulong NearAddresses = 16 << 20;

    /// <summary>
    /// An address of an input as it is in the ring: below 16 MiB it is taken relative to the guest's memory, since an arbitrary one
    /// never hits that.
    /// </summary>
    public static GuestAddress Place(GuestAddress address) =>
        address.Value < NearAddresses ? new(QueueRig.Base + address.Value) : address;

    /// <summary>Lines like "indirect r40 w16".</summary>
    public static IEnumerable<RecordedChain> Recorded() => Targets.Recorded.Read("chains").Select(words => new RecordedChain(
        words[0] == "indirect",
        [.. words.Skip(1).Select((word, i) => (
            new GuestRange(new(0x9000 + (0x1000 * (ulong)i)), uint.Parse(word.AsSpan(1), CultureInfo.InvariantCulture)),
            word[0] == 'w'))]));

    /// <summary>No piece is outside the guest's memory, and there are no more than a chain may have.</summary>
    public static void AssertInside(GuestMemory guest, DescriptorChain chain)
    {
        Assert.InRange(chain.Readable.Count + chain.Writable.Count, 0, DescriptorChain.MaxPieces);
        AssertInside(guest, chain.Readable);
        AssertInside(guest, chain.Writable);
    }

    private static void AssertInside(GuestMemory guest, IoVectorList list)
    {
        foreach (IoVector vector in list.Vectors)
        {
            Assert.True(
                vector.Length != 0 && (IsInside(vector, guest.Regions[0].Address, QueueRig.RegionSize)
                    || IsInside(vector, guest.Regions[1].Address, QueueRig.SecondSize)),
                $"a piece of {vector.Length} bytes at {(nuint)vector.Address:x}");
        }
    }

    private static bool IsInside(IoVector vector, byte* start, ulong size) =>
        vector.Address >= start && vector.Address < start + size && vector.Length <= (ulong)(start + size - vector.Address);
}
