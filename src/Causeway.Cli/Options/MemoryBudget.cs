using Causeway.Passthrough;
using Causeway.Server;

namespace Causeway.Cli.Options;

/// <summary>
/// <c>--memory-max</c>: how much memory the daemon may have, and what it is for. Everything that grows with what guests do has a limit,
/// and the limits follow from the size.
/// </summary>
/// <remarks>
/// <code>
/// 16 MiB                   the program itself: code, stacks, managed memory that does not grow
/// a quarter of the rest,   requests in work (--max-in-flight, each with 32 KiB of the daemon's own); reads that wait for the disk are
/// 16 to 256 MiB            at most as many as have room in it with 2 MiB each
/// of what is left:
///   a sixteenth            requests that wait for locks: 64 KiB for each and its thread
///   a sixteenth            directories watched one by one: 1 KiB for each, the kernel's as well
///   a thirty-second        record locks: 256 bytes of the kernel's memory for each
///   a thirty-second        listings that a guest has begun to read
///   half of the rest       nodes: 112 bytes for each object that a guest knows, all guests together
///   the other half         descriptors: 1.5 KiB of the kernel's memory for each, which a control group counts as well
/// </code>
/// </remarks>
/// <param name="Size">Bytes altogether.</param>
internal sealed record MemoryBudget(long Size)
{
    /// <summary>The least there can be: 16 MiB for nodes and descriptors.</summary>
    public const long Least = 48 << 20;

    private const long Own = 16 << 20;

    // A node, its part of the hash table, and one of handles that are remembered (RememberedHandles).
    private const long NodeBytes = 112;

    // struct file, and the inode and name that it keeps in the kernel: 256, 1,100 and 192 bytes with ext4.
    private const long DescriptorBytes = 1536;

    // A stack as far as it is used, the kernel's own, and what the request keeps.
    private const long LockWaitBytes = 64 << 10;

    // struct inotify_inode_mark, and the inode that it keeps in the kernel.
    private const long WatchBytes = 1 << 10;

    // struct file_lock, and our note of it.
    private const long LockBytes = 256;

    // A request of a mount that is handed over, which is not counted with those in work.
    private const long HandedOverBytes = 2 << 20;

    // Beyond that nothing gets faster.
    private const long MostDescriptors = 1_000_000;

    /// <summary>Most bytes of requests in work.</summary>
    public long InFlightBytes => Math.Clamp(
        (Size - Own) / 4, VirtioFsServerOptions.LeastInFlightBytes, VirtioFsServerOptions.DefaultInFlightBytes);

    /// <summary>The device with as much in work as there is memory for, unless the operator has said how much.</summary>
    public DeviceOptions Apply(DeviceOptions device, bool saysInFlight) =>
        saysInFlight ? device : device with { MaxInFlightBytes = InFlightBytes };

    /// <summary>The share with as many nodes and descriptors as there is memory for.</summary>
    /// <param name="passthrough">The share.</param>
    /// <param name="inFlightBytes">What requests in work may have.</param>
    /// <exception cref="UsageException">Requests leave too little.</exception>
    public PassthroughOptions Apply(PassthroughOptions passthrough, long inFlightBytes)
    {
        long left = Size - Own - inFlightBytes;
        if (left < Least - Own - VirtioFsServerOptions.LeastInFlightBytes)
        {
            throw new UsageException(
                $"'--memory-max' has to be 32 MiB more than '--max-in-flight', which is {inFlightBytes >> 20}M: change one of them");
        }

        left /= passthrough.MaxSessions;
        long nodes = left * 13 / 32 / NodeBytes;
        long descriptors = left * 13 / 32 / DescriptorBytes;
        return passthrough with
        {
            MaxLockWaits = (int)Math.Clamp(left / 16 / LockWaitBytes, 1, passthrough.MaxLockWaits),
            MaxWatches = (int)Math.Min(left / 16 / WatchBytes, passthrough.MaxWatches),
            QueuedReads = (int)Math.Min(inFlightBytes / HandedOverBytes, passthrough.QueuedReads),
            MaxLocks = (int)Math.Clamp(left / 32 / LockBytes, 1, passthrough.MaxLocks),
            MaxLeftoverBytes = Math.Min(left / 32, passthrough.MaxLeftoverBytes),
            MaxNodes = (int)Math.Min(nodes, passthrough.MaxNodes),
            DescriptorCeiling = (int)Math.Min(descriptors, MostDescriptors),
        };
    }
}
