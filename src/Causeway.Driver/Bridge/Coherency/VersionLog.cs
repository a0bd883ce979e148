using System.Numerics;
using Causeway.Fuse;

namespace Causeway.Driver.Bridge;

/// <summary>Follows the log of a version table: which words have changed. A hint only, which may be lost; then it says so.</summary>
/// <param name="reader">The table.</param>
internal sealed class VersionLog(VersionTableReader reader)
{
    private readonly uint _entries = (uint)reader.Layout.LogEntries;
    private readonly uint _first = (uint)(reader.Layout.LogOffset / sizeof(ulong));
    private ulong _tail = reader.Load(VersionTableLayout.LogHeadWord);

    /// <summary>Reads what has been written since the last call.</summary>
    /// <param name="words">The words are added here.</param>
    /// <returns>False when some were lost: anything may have changed.</returns>
    public bool TryRead(ICollection<uint> words)
    {
        ulong head = reader.Load(VersionTableLayout.LogHeadWord);
        if (head - _tail > _entries)
        {
            _tail = head;
            return false;
        }

        for (; _tail != head; _tail++)
        {
            ulong entry = reader.Load(_first + (uint)(_tail & (_entries - 1)));
            uint lap = (uint)(_tail >> BitOperations.Log2(_entries)) + 1;
            if ((uint)(entry >> 32) != lap)
            {
                if ((uint)(entry >> 32) == lap + 1)
                {
                    _tail = head;
                    return false;
                }

                // Taken, and not written yet.
                break;
            }

            words.Add((uint)entry);
        }

        return true;
    }
}
