using Causeway.Linux;
using Causeway.VhostUser.Frontend;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Driver;

/// <summary>
/// The memory that is shared with the device: one sealed memory file, mapped once, from which rings and buffers are cut
/// when a connection is made.
/// </summary>
internal sealed unsafe class GuestArena : IDisposable
{
    // Guest addresses are ours to choose; not zero, so that a null address is noticed.
    private const ulong Start = 1UL << 30;
    private const ulong Page = 4096;
    private const ulong HugePage = 2UL << 20;

    private readonly SafeFileHandle _file;
    private readonly MemoryMapping _mapping;
    private ulong _used;

    internal GuestArena(ulong size, HugePageUse hugePages)
    {
        SafeFileHandle? huge = hugePages == HugePageUse.WhenAvailable ? TryCreateHuge(RoundUp(size, HugePage)) : null;
        HasHugePages = huge is not null;
        Size = RoundUp(size, HasHugePages ? HugePage : Page);
        _file = huge ?? Memory.CreateMemoryFile("causeway-driver"u8, (long)Size, FileSeals.Shrink | FileSeals.Grow);
        try
        {
            _mapping = MemoryMapping.MapShared(_file, 0, Size, MemoryProtection.Read | MemoryProtection.Write);
        }
        catch
        {
            _file.Dispose();
            throw;
        }
    }

    /// <summary>Whether the memory is made of huge pages.</summary>
    internal bool HasHugePages { get; }

    /// <summary>Its size in bytes.</summary>
    internal ulong Size { get; }

    /// <summary>Where it is in this process.</summary>
    internal byte* Address => _mapping.Address;

    /// <summary>The arena as the front end describes it: the addresses of our own process are front-end addresses.</summary>
    internal FrontendRegion Region => new(
        new GuestMemoryRange(new GuestAddress(Start), new FrontendAddress((ulong)Address), Size, FileOffset: 0), _file);

    /// <inheritdoc/>
    public void Dispose()
    {
        _mapping.Dispose();
        _file.Dispose();
    }

    /// <summary>How many bytes <see cref="Cut"/> takes for a piece.</summary>
    internal static ulong Footprint(ulong bytes) => RoundUp(bytes, Page);

    /// <summary>Cuts a piece off, which starts on a page and is zero.</summary>
    internal byte* Cut(ulong bytes, out GuestAddress address)
    {
        ulong offset = _used;
        _used += Footprint(bytes);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(_used, Size, nameof(bytes));
        address = new GuestAddress(Start + offset);
        return Address + offset;
    }

    /// <summary>The front-end address of a guest address of the arena.</summary>
    internal FrontendAddress ToFrontendAddress(GuestAddress address) =>
        new((ulong)Address + (address.Value - Start));

    /// <summary>
    /// Allocates all pages at once: a huge page that is missing later would be a SIGBUS, in this process or in the daemon.
    /// </summary>
    private static SafeFileHandle? TryCreateHuge(ulong size)
    {
        SyscallResult created = Memory.MemfdCreate(
            "causeway-driver\0"u8,
            MemoryFileFlags.CloseOnExec | MemoryFileFlags.AllowSealing | MemoryFileFlags.HugeTlb);
        if (created.IsError)
        {
            return null;
        }

        var file = new SafeFileHandle(created.Descriptor, ownsHandle: true);
        bool isUsable = !Files.Ftruncate(created.Descriptor, (long)size).IsError
            && !Files.Fallocate(created.Descriptor, 0, 0, (long)size).IsError
            && !Memory.AddSeals(created.Descriptor, FileSeals.Shrink | FileSeals.Grow).IsError;
        if (!isUsable)
        {
            file.Dispose();
            return null;
        }

        return file;
    }

    private static ulong RoundUp(ulong bytes, ulong unit) => (bytes + unit - 1) / unit * unit;
}
