using Causeway.Linux;

namespace Causeway.Fuse;

/// <summary>
/// The DAX window of a device: memory that guest and host share, into which files are mapped so that the guest reads and
/// writes them without requests. The transport has it, a session hands it to the file system in
/// <see cref="FuseNegotiation.Window"/>, and the file system says what is mapped.
/// </summary>
/// <remarks>
/// <para>The window is a row of slots of <see cref="SlotSize"/> bytes, each empty or holding as much of one file, from a
/// multiple of that size on. Of a slot's part of the file only a beginning may be mapped, when the file ends in it
/// (<see cref="NeedsWholePages"/>); the guest does not touch what lies behind the end of a file, and asks no second time
/// when the file grows.</para>
/// <para>All methods may wait for the front end, and may be called by any thread that serves requests.</para>
/// </remarks>
public interface IDaxWindow
{
    /// <summary>Size of a slot: what Linux maps at a time.</summary>
    const ulong SlotSize = 2UL << 20;

    /// <summary>Size of the window in bytes, a multiple of <see cref="SlotSize"/>.</summary>
    ulong Size { get; }

    /// <summary>
    /// Whether the front end maps only pages that lie wholly inside a file, and every file for writing, as QEMU does: it would
    /// enlarge an empty file, and cannot map one that may only be read. Valid after <see cref="TryBegin"/>.
    /// </summary>
    bool NeedsWholePages { get; }

    /// <summary>INIT: what was mapped is void.</summary>
    /// <returns>Whether files can be mapped.</returns>
    bool TryBegin();

    /// <summary>DESTROY, or the guest is gone: nothing is mapped any more.</summary>
    void End();

    /// <summary>Maps a part of a file, in place of what its slots hold.</summary>
    /// <param name="file">The file. Each slot counts as a use until something else takes its place.</param>
    /// <param name="range">Which part, and where in the window. Checked by the session.</param>
    /// <param name="limit">Where in the file the pages end that can be mapped.</param>
    /// <returns>ENOMEM when the front end refuses, EIO when it cannot be asked.</returns>
    Errno Map(MappableFile file, in FuseSetupMappingIn range, ulong limit);

    /// <summary>Empties the slots of a range.</summary>
    /// <param name="offset">Where it starts in the window. Checked by the session, as is the length.</param>
    /// <param name="length">How long it is.</param>
    Errno Unmap(ulong offset, ulong length);

    /// <summary>Completes the slots of a file of which only a beginning is mapped, before the file grows.</summary>
    /// <param name="file">The file.</param>
    /// <param name="end">Where the file will end: slots that start there or later stay as they are.</param>
    /// <param name="limit">Where in the file the pages end that can be mapped.</param>
    /// <param name="isComplete">Whether all that can be is mapped now.</param>
    /// <returns>From where on something is still missing, as an offset in the file.</returns>
    ulong Extend(MappableFile file, ulong end, ulong limit, out bool isComplete);

    /// <summary>Ends the mapping of a file's pages, before the file shrinks.</summary>
    /// <param name="file">The file.</param>
    /// <param name="end">From where on, a multiple of the page size. The pages before can still be mapped.</param>
    /// <returns>Whether none of them is mapped any more.</returns>
    bool Shrink(MappableFile file, ulong end);
}

/// <summary>A file that is mapped into windows, as the windows see it. One object for a file, whatever window it is in.</summary>
public abstract class MappableFile
{
    /// <summary>A descriptor of the file, open for writing if <see cref="IsWritable"/>. Valid while there are uses.</summary>
    public abstract int Descriptor { get; }

    /// <summary>Whether the file may be mapped for writing.</summary>
    public abstract bool IsWritable { get; }

    /// <summary>The device number and the inode number, by which a descriptor of the file is recognized.</summary>
    public abstract (ulong Device, ulong Inode) Identity { get; }

    /// <summary>A slot of a window holds the file from now on. Called with the window's locks held: must not call it.</summary>
    /// <param name="window">The window.</param>
    public abstract void AddUse(IDaxWindow window);

    /// <summary>A slot of a window does not hold the file any more. Called like <see cref="AddUse"/>.</summary>
    /// <param name="window">The window.</param>
    public abstract void EndUse(IDaxWindow window);
}
