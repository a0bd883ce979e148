namespace Causeway.Fuse;

/// <summary>The way in which one guest gets to see the version table: the transport has it.</summary>
public interface IVersionRegion
{
    /// <summary>INIT: shows the table to the guest. May wait for the front end.</summary>
    /// <returns>Whether the guest sees it.</returns>
    bool TryBegin();

    /// <summary>DESTROY, or the guest is gone. May be called more than once.</summary>
    void End();
}
