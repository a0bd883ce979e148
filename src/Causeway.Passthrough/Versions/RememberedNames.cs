using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;

namespace Causeway.Passthrough;

/// <summary>
/// What names mean that were given lately, each with the version that its word has had since. Who takes such a name away, and holds
/// its word at that version, need not ask the kernel which object loses it.
/// </summary>
/// <remarks>
/// <para>Only where nobody but the sessions of this share changes names: then no name changes its meaning unless its word moves.</para>
/// <para>A name has one place, which it shares with others; the last one keeps it. A place that another thread is at is passed by:
/// then the name is not known, which is always right.</para>
/// </remarks>
internal sealed class RememberedNames
{
    // Arbitrary: half a megabyte, of which only what is used takes memory. Temporary names live short.
    private const int PlaceCount = 4096;

    private readonly Place[] _places = new Place[PlaceCount];

    /// <summary>Keeps what a name means.</summary>
    /// <param name="name">The name.</param>
    /// <param name="version">The version of its word since it means that.</param>
    /// <param name="meaning">What it means.</param>
    public void Remember(in VersionedName name, ulong version, NamedObject meaning)
    {
        ref Place place = ref PlaceOf(name);
        if (name.Text.Length > NameBytes.Capacity || !place.TryEnter())
        {
            return;
        }

        place.Word = name.Word;
        place.Version = version;
        place.Device = name.Device;
        place.Directory = name.Directory;
        place.Meaning = meaning;
        place.Length = name.Text.Length;
        name.Text.CopyTo(place.Name);
        place.Leave();
    }

    /// <summary>Finds what a name means.</summary>
    /// <param name="name">The name.</param>
    /// <param name="version">The version at which its word is held.</param>
    /// <param name="meaning">What it means.</param>
    /// <returns>Whether that is known.</returns>
    public bool TryRecall(in VersionedName name, ulong version, out NamedObject meaning)
    {
        meaning = default;
        ref Place place = ref PlaceOf(name);
        if (!place.TryEnter())
        {
            return false;
        }

        bool isKnown = place.Word == name.Word
            && place.Version == version
            && place.Device == name.Device
            && place.Directory == name.Directory
            && name.Text.SequenceEqual(place.Name[..place.Length]);
        meaning = place.Meaning;
        place.Leave();
        return isKnown;
    }

    private ref Place PlaceOf(in VersionedName name) => ref _places[name.Word % PlaceCount];

    /// <summary>The bytes of a name.</summary>
    [InlineArray(Capacity)]
    private struct NameBytes
    {
        // What makes a place two cache lines.
        public const int Capacity = 72;

        private byte _first;
    }

    private struct Place
    {
        public uint Word;
        public ulong Version;
        public ulong Device;
        public ulong Directory;
        public NamedObject Meaning;
        public int Length;

        private NameBytes _name;
        private int _isTaken;

        [UnscopedRef]
        public Span<byte> Name => _name;

        public bool TryEnter() => Interlocked.Exchange(ref _isTaken, 1) == 0;

        public void Leave() => Volatile.Write(ref _isTaken, 0);
    }
}

/// <summary>A name with its word of the version table.</summary>
/// <param name="word">The word.</param>
/// <param name="device">The device number of the directory's file system.</param>
/// <param name="directory">The directory's inode number.</param>
/// <param name="text">The name, without a NUL.</param>
internal readonly ref struct VersionedName(uint word, ulong device, ulong directory, ReadOnlySpan<byte> text)
{
    public uint Word { get; } = word;

    public ulong Device { get; } = device;

    public ulong Directory { get; } = directory;

    public ReadOnlySpan<byte> Text { get; } = text;
}

/// <summary>An object that has a name.</summary>
/// <param name="Inode">Its inode number.</param>
/// <param name="IsDirectory">Whether it is a directory.</param>
internal readonly record struct NamedObject(ulong Inode, bool IsDirectory);
